"""Take out chosen guards of verification, records, registry, gate and input, and see that a test notices each.

Usage: ``python benchmarks/mutations.py [WORD]``, of which the word selects mutations by their description. Each is made
in a copy of the project; the named tests must fail there, and pass in an unchanged copy.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_FORGED = "tests/attacks/test_forged_verification.py"
_SIGNING = "tests/layerflow/registry/test_signing.py"


class Mutation(NamedTuple):
    """What is taken out: ``old`` in ``file`` becomes ``new``, which ``tests`` must notice."""

    guard: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "the answer carries the request's nonce",
        "layerflow/export/process.py",
        'if answer.pop("nonce", None) == nonce:',
        'if answer.pop("nonce", None) or True:',
        (_FORGED, "-k", "nonce"),
    ),
    Mutation(
        "a graph is checked before it is loaded",
        "layerflow/export/verifier/model.py",
        "self.graph = check_graph(folder)",
        'self.graph = "unchecked"',
        (_FORGED, "-k", "unchecked"),
    ),
    Mutation(
        "what is accepted is what the threshold says",
        "layerflow/export/verifier/answering.py",
        "same = np.array_equal(accepted[clear], wanted[clear])",
        "same = True",
        (_FORGED, "-k", "accepts_by_anything or forged_threshold"),
    ),
    Mutation(
        "another temperature or threshold is another model",
        "layerflow/registry/model_identity.py",
        "([other] if other else [])",
        "[]",
        ("tests/attacks/test_forged_versions.py", "-k", "make_another_model"),
    ),
    Mutation(
        "no temperature is fitted to a few mistakes",
        "layerflow/evaluation/temperature.py",
        "if mistakes < _FEWEST_MISTAKES:",
        "if False:",
        ("tests/layerflow/evaluation/test_confidence.py", "-k", "fewer_than_ten"),
    ),
    Mutation(
        "a version has the digests of the ledger",
        "layerflow/registry/versions.py",
        "if checksums.sha256(folder / DIGESTS) != entry.sums:",
        "if False:",
        ("tests/attacks/test_forged_versions.py",),
    ),
    Mutation(
        "a signature is of every file of its version",
        "layerflow/registry/signatures.py",
        "if name := checksums.first_difference(signed, files):",
        "if name := None:",
        (_SIGNING, "-k", "flipped or added_or_removed or by_hand"),
    ),
    Mutation(
        "no byte of a signature could be another",
        "layerflow/registry/signatures.py",
        'if file.read_text(encoding="utf-8") not in written:',
        "if False:",
        (_SIGNING, "-k", "could_be_another"),
    ),
    Mutation(
        "a signed version keeps its number",
        "layerflow/registry/signatures.py",
        "if is_version(folder.name) and",
        "if False and",
        (_SIGNING, "-k", "older_version"),
    ),
    Mutation(
        "a record has the digest of itself",
        "layerflow/artifacts.py",
        "and digest == _digest(content)",
        "",
        ("tests/layerflow/test_store.py", "-k", "edited"),
    ),
    Mutation(
        "Prefect's record is ours",
        "layerflow/artifacts.py",
        'and _digest(value["data"]) == _digest(record.model_dump(mode="json"))',
        "",
        ("tests/layerflow/test_store.py", "-k", "forged_record"),
    ),
    Mutation(
        "classes are bound by the digest of the data",
        "layerflow/artifacts.py",
        "and record.matches(files)",
        "",
        ("tests/layerflow/test_store.py", "-k", "bound_by_the_digest"),
    ),
    Mutation(
        "a model beats the most frequent class",
        "layerflow/registry/gate.py",
        'if gate.baseline == "none" or p_value < LEVEL:',
        "if True:",
        ("tests/layerflow/registry/test_gate.py",),
    ),
    Mutation(
        "a model recognizes each class",
        "layerflow/registry/gate.py",
        "if recall >= gate.min_class_recall:",
        "if True:",
        ("tests/layerflow/registry/test_gate.py",),
    ),
    Mutation(
        "evaluation and verification agree",
        "layerflow/registry/decision.py",
        "if differs := gate.disagreement(evaluation, verified):",
        'if differs := "":',
        ("tests/layerflow/registry/test_promotion.py", "-k", "contradicts"),
    ),
    Mutation(
        "force passes no latency ceiling",
        "layerflow/registry/decision.py",
        "if comparison and (slow := gate.too_slow(rules, comparison)):",
        'if comparison and (slow := ""):',
        ("tests/layerflow/registry/test_promotion.py", "-k", "latency"),
    ),
    Mutation(
        "images that a model has learned from are left out of the comparison",
        "layerflow/registry/known_images.py",
        "return tests.keep(~np.isin(digests, np.concatenate([challenger.learned, champion.learned])))",
        "return tests",
        ("tests/layerflow/registry/test_comparison.py", "-k", "left_out"),
    ),
    Mutation(
        "a class that the live version does not know reaches the floor",
        "layerflow/registry/gate.py",
        "if right / examples < gate.min_class_recall:",
        "if False:",
        ("tests/layerflow/registry/test_comparison.py", "-k", "other_classes"),
    ),
    Mutation(
        "no decline adds up",
        "layerflow/registry/gate.py",
        'if not measured.code.startswith("kept"):',
        "if True:",
        ("tests/layerflow/registry/test_decline.py", "-k", "small_steps"),
    ),
    Mutation(
        "the best version is never pruned",
        "layerflow/registry/publishing.py",
        "predecessor(name), best_of(name), *aliased}",
        "predecessor(name), *aliased}",
        ("tests/layerflow/registry/test_decline.py", "-k", "pruned"),
    ),
    Mutation(
        "first weights follow the seed alone",
        "layerflow/models/seeded.py",
        "getattr(own, name) if threading.get_ident() == thread else shared[name]",
        "shared[name]",
        ("tests/layerflow/models/test_seeded.py",),
    ),
    Mutation(
        "YAML gives a name once",
        "layerflow/yaml_file.py",
        "if key.value in seen:",
        "if False:",
        ("tests/layerflow/test_yaml_file.py",),
    ),
    Mutation(
        "YAML has no anchors",
        "layerflow/yaml_file.py",
        "if event.anchor:",
        "if False:",
        ("tests/layerflow/test_yaml_file.py",),
    ),
    Mutation(
        "a repaired JPEG is broken",
        "layerflow/data/decode.py",
        "if _DAMAGE.search(str(error)):",
        "if False:",
        ("tests/layerflow/data/test_image_folder.py", "-k", "libjpeg"),
    ),
    Mutation(
        "secrets of addresses are masked",
        "layerflow/errors.py",
        "if isinstance(content, str):",
        "if False:",
        ("tests/layerflow/test_masking.py",),
    ),
    Mutation(
        "added losses count",
        "layerflow/training/step.py",
        "return tf.add_n(losses) if losses else None",
        "return None",
        ("tests/layerflow/training/test_added_losses.py", "-k", "figures"),
    ),
    Mutation(
        "a model that is worse in a slice is kept",
        "layerflow/registry/gate.py",
        "worse = [each for each in found.slices if each.p_value < LEVEL and each.difference < 0]",
        "worse = []",
        ("tests/layerflow/registry/test_figures.py", "-k", "slice"),
    ),
    Mutation(
        "the p values of slices are corrected for their number",
        "layerflow/registry/figures.py",
        "corrected = holm([each.p_value for each in paired])",
        "corrected = [each.p_value for each in paired]",
        ("tests/layerflow/registry/test_figures.py", "-k", "corrected"),
    ),
    Mutation(
        "the worst figure that may be published is a floor",
        "layerflow/registry/decision.py",
        "below_metric_floor(",
        "(lambda *arguments: None)(",
        ("tests/layerflow/registry/test_figures.py", "-k", "worst"),
    ),
    Mutation(
        "a candidate that has changed is not published",
        "layerflow/registry/answers.py",
        "if damage := candidates.damage(name, asked):",
        'if damage := "":',
        ("tests/layerflow/registry/test_candidates.py",),
    ),
    Mutation(
        "a pack stays while a version of data needs it",
        "layerflow/collection/collect.py",
        "if shared.is_needed(each):",
        "if False:",
        ("tests/layerflow/collection/test_collect.py", "-k", "last_version"),
    ),
    Mutation(
        "the images in the packs are those of the version",
        "layerflow/data/arrays.py",
        "if not same:",
        "if False:",
        ("tests/layerflow/data/test_packs.py", "-k", "other_images"),
    ),
    Mutation(
        "a damaged pack is not taken from",
        "layerflow/data/packs.py",
        "if (pack := self._known[number]).is_sound():",
        "if pack := self._known[number]:",
        ("tests/layerflow/data/test_packs.py", "-k", "not_taken_from"),
    ),
)


def passes(project: Path, tests: tuple[str, ...]) -> bool:
    """Whether the tests pass in a copy of the project; no test at all is no pass."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        sys.exit(done.stdout + done.stderr)
    return done.returncode == 0


def main() -> int:
    """Number of guards that can be taken out without any test noticing."""
    chosen = [each for each in MUTATIONS if not sys.argv[1:] or sys.argv[1] in each.guard]
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        shutil.copytree(
            ROOT, project, ignore=shutil.ignore_patterns(".git", ".venv", "store", "__pycache__", ".*_cache")
        )
        for each in chosen:
            file = project / each.file
            whole = file.read_text()
            if whole.count(each.old) != 1:
                sys.exit(f"{each.file} must hold the guard once: {each.old}")
            if not passes(project, each.tests):
                sys.exit(f"the tests must pass before the guard is taken out: {' '.join(each.tests)}")
            file.write_text(whole.replace(each.old, each.new))
            noticed = not passes(project, each.tests)
            file.write_text(whole)
            unnoticed += not noticed
            print(f"{'noticed' if noticed else 'UNNOTICED':10}{each.guard}", flush=True)
    print(f"{len(chosen)} guards taken out, {unnoticed} without a test that notices")
    return unnoticed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
