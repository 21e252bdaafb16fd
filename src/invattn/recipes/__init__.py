"""The named forms of attention, and the function that makes a block."""

from invattn.recipes.base import ATTENTION_KINDS as ATTENTION_KINDS
from invattn.recipes.base import KINDS as KINDS
from invattn.recipes.base import BlockShape as BlockShape
from invattn.recipes.base import Recipe as Recipe
from invattn.recipes.block import RECIPES as RECIPES
from invattn.recipes.block import attention_map as attention_map
from invattn.recipes.block import invertible_attention as invertible_attention
from invattn.recipes.block import make_recipe as make_recipe
from invattn.recipes.certified import Certified as Certified
from invattn.recipes.certified import Strict as Strict
from invattn.recipes.relaxed import Paper as Paper
from invattn.recipes.relaxed import Released as Released
from invattn.recipes.relaxed import ReleasedGenerative as ReleasedGenerative
from invattn.recipes.relaxed import Unconstrained as Unconstrained
from invattn.recipes.relaxed import constrain_after_step as constrain_after_step
from invattn.recipes.relaxed import convert_authors_state_dict as convert_authors_state_dict
