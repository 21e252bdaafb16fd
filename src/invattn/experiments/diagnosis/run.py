"""Diagnose a stored model on test images, and compare its warnings with what its inverse really returns."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invattn._files import write_json
from invattn.bijections import diagnose
from invattn.diagnosis import Diagnosis
from invattn.experiments.diagnosis.config import DiagnosisConfig as DiagnosisConfig
from invattn.experiments.diagnosis.record import DiagnosedImage, DiagnosisRecord
from invattn.experiments.kit.data.dequantise import DequantisedImages, to_pixels
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data
from invattn.experiments.kit.inversion import V_SCORE_THRESHOLD, InversionReport, invert_images, visible_pixels
from invattn.experiments.kit.options import TEST_SIZE, TRAIN_SIZE
from invattn.experiments.kit.output import Arrays, check_output, library_versions, make_folder, write_arrays
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.loader import derive_seed
from invattn.functional import squeeze, unsqueeze
from invattn.hub import LoadedModel, ModelConfig, load_model
from invattn.solvers import Picard

SHOWN = 24
"""Largest number of images, and of pairs, in the pictures."""


def run_diagnosis(config: DiagnosisConfig, progress: Progress) -> DiagnosisRecord:
    """Diagnose a model and write ``results.json`` and ``artifacts/diagnosis.npz`` below ``config.output``.

    Diagnosis is in float64, from Jacobians and the search for second preimages; afterwards the stored model inverts
    the same images, as in the reconstruction experiment, only to see which of them it loses.

    Args:
        config: The user's options.
        progress: Is told what goes on.

    Returns:
        The content of ``results.json``.

    Raises:
        DataError: If the model, the data or the output cannot be used; one line that says what to do.
        CertificateError: If the model is not the one that was certified.
        OSError: If a file cannot be written.
    """
    check_output(config.output)
    loaded = load_model(config.model)
    data = _load(config)
    count = len(data.test) if config.images is None else min(config.images, len(data.test))
    images = DequantisedImages(data.test[:count], seed=derive_seed(config.seed, "test noise"))
    make_folder(config.output / "artifacts")
    started = time.monotonic()
    report, others = _diagnose(loaded, images, config, progress)
    between = time.monotonic()
    inversion = _invert(loaded, images, config, progress)
    record = DiagnosisRecord(
        command=config.command(),
        seed=config.seed,
        versions=library_versions("torchmetrics"),
        data={"name": data.name, "fingerprint": data.fingerprint, "test": count, "notes": list(data.notes)},
        settings=config.settings(),
        model=_describe(loaded),
        images=_rows(report, others, images, inversion),
        seconds={"diagnosis": between - started, "reconstruction": time.monotonic() - between},
    )
    write_arrays(config.output / "artifacts" / "diagnosis.npz", _pictures(record, others, images, loaded, config))
    write_json(config.output / "results.json", record.to_json())
    return record


def _load(config: DiagnosisConfig) -> ImageData:
    request = ImageRequest(
        config.data,
        data_root=config.data_root,
        train_size=TRAIN_SIZE,
        test_size=TEST_SIZE,
        image_size=config.pixels(),
        seed=config.seed,
    )
    return load_reconstruction_data(request)


def _describe(loaded: LoadedModel[ModelConfig]) -> dict[str, Any]:
    certificate = loaded.certificate
    proven = None if certificate["bound"] is None else {key: certificate[key] for key in ("bound", "norm")}
    return {
        "attention": loaded.config.kind,
        "recipe": loaded.config.recipe.name,
        "certificate": proven,
        "lost_from": V_SCORE_THRESHOLD,
        "picard_steps": _picard_steps(loaded),
    }


def _picard_steps(loaded: LoadedModel[ModelConfig]) -> int:
    solver = loaded.config.solver
    return solver.max_steps if isinstance(solver, Picard) else Picard().max_steps


def _diagnose(
    loaded: LoadedModel[ModelConfig], images: DequantisedImages, config: DiagnosisConfig, progress: Progress
) -> tuple[list[Diagnosis], Tensor]:
    """Return the reports of all batches, and the second preimages as images in the model's units."""
    block = copy.deepcopy(loaded.config.block_of(loaded.model)).double()
    checks = config.checks(picard_steps=_picard_steps(loaded))
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "diagnosis"))
    reports, others = [], []
    progress.begin("diagnose", total=len(images))
    try:
        for index in torch.split(torch.arange(len(images)), config.batch_size):
            inputs = squeeze(images(index).double(), loaded.config.squeeze)
            reports.append(diagnose(block, inputs, checks=checks, generator=generator))
            others.append(unsqueeze(reports[-1].preimage, loaded.config.squeeze))
            flagged = sum(int(report.flagged.sum()) for report in reports)
            progress.advance(len(index), note=f"{flagged} flagged")
    finally:
        progress.end()
    return reports, torch.cat(others)


def _invert(
    loaded: LoadedModel[ModelConfig], images: DequantisedImages, config: DiagnosisConfig, progress: Progress
) -> InversionReport:
    return invert_images(
        loaded.model,
        images,
        count=len(images),
        batch_size=config.batch_size,
        clip=not loaded.model.certified,
        progress=progress,
        task="invert, to compare",
    )


def _rows(
    reports: list[Diagnosis], others: Tensor, images: DequantisedImages, inversion: InversionReport
) -> list[DiagnosedImage]:
    rows: list[DiagnosedImage] = []
    for report in reports:
        for local in range(len(report.spectral_radius)):
            number = len(rows)
            original = images(torch.tensor([number])).double()[0]
            rms = (to_pixels(others[number]) - to_pixels(original)).square().mean().sqrt()
            rows.append(
                DiagnosedImage(
                    index=number,
                    spectral_radius=float(report.spectral_radius[local]),
                    path_radius=float(report.path_radius[local]),
                    spectral_norm=float(report.spectral_norm[local]),
                    lipschitz_ratio=float(report.lipschitz_ratio[local]),
                    det_sign=int(report.det_sign[local]),
                    reasons=report.reasons(local),
                    second_preimage=bool(report.second_preimage[local]),
                    rms=float(rms),
                    output_difference=float(report.output_difference[local]),
                    pull=float(report.pull[local]),
                    mse=float(inversion.mse[number]),
                )
            )
    return rows


def _pictures(
    record: DiagnosisRecord,
    others: Tensor,
    images: DequantisedImages,
    loaded: LoadedModel[ModelConfig],
    config: DiagnosisConfig,
) -> Arrays:
    """Return the flagged images with what the inverse returns, and the pairs with their differences."""
    failing = [image.index for image in record.images if image.flagged or record.lost(image)][:SHOWN]
    pairs = [image.index for image in record.images if image.collides]
    pairs = sorted(pairs, key=lambda number: -record.images[number].rms)[:SHOWN]
    arrays: Arrays = {"failing_index": np.asarray(failing, dtype=np.int64), "pair_index": np.asarray(pairs, np.int64)}
    if failing:
        index = torch.tensor(failing)
        with torch.no_grad():
            returned = loaded.model.solve(loaded.model(images(index))).value
        arrays |= {
            "failing_image": visible_pixels(to_pixels(images(index))),
            "failing_returned": visible_pixels(to_pixels(returned)),
        }
    if pairs:
        index = torch.tensor(pairs)
        first, second = to_pixels(images(index).double()), to_pixels(others[index])
        difference = (first - second).abs().amax(dim=1)
        arrays |= {"pair_first": visible_pixels(first), "pair_second": visible_pixels(second)}
        arrays |= {"pair_difference": difference.float().numpy()}
    return arrays
