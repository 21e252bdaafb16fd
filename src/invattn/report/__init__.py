"""Tables, figures and one self-contained HTML page from the files that a run left behind; needs no torch."""

from __future__ import annotations

from invattn.report.density_page import write_samples as write_samples
from invattn.report.diagnosis_page import write_diagnosis as write_diagnosis
from invattn.report.markdown import markdown_table as markdown_table
from invattn.report.merged_page import write_merged as write_merged
from invattn.report.page import write_report as write_report
from invattn.report.sample_page import write_sample_page as write_sample_page
