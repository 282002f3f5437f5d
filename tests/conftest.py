"""Processes that die at a chosen moment, and a tiny run that many tests read."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Some tests fork, and a forked child waits for ever on the idle threads of its parent's libgomp,
# which it does not have. One thread is also the faster for models of this size. Read by torch
# when it is imported, so it has to stand here, before any test module.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell has it ignored by what it starts in the background, and so would every verb that the tests
# start: a run of training that was sent one went on for 100,000 steps.
signal.signal(signal.SIGINT, signal.default_int_handler)


LISTED_SKIPS = (
    "signals and pipes of POSIX",
    "no device that is always full",
    "there is no CUDA device",
    "there is a CUDA device",
    "Triton is not installed",
    "needs the files of Linux in /proc",
    "needs glibc, 64 bits wide",
    "strace is not installed or may not trace",
    "needs the right to mount",
    "needs the right to leave the network",
)
"""Why a test may be skipped; with --strict-skips any other reason fails the run."""

_unlisted: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="Fail on a skip not listed.")


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if reason not in LISTED_SKIPS:
        _unlisted.append(f"{report.nodeid}: {reason}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unlisted and session.config.getoption("--strict-skips"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _unlisted:
        terminalreporter.write_line(f"skipped for a reason not listed: {line}", red=True)


def _killed_at(moment: int, action: Callable[[], object]) -> bool:
    """Run in a forked process that dies at its n-th file operation; whether it died.

    Python reports opening, renaming, making and removing of files to audit hooks before they
    happen, so counting them reaches every moment between two of them.
    """
    child = os.fork()
    if child == 0:
        left = [moment]

        def count(event: str, _: object) -> None:
            if event == "open" or event.startswith(("os.", "shutil.")):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.fixture
def killed_at() -> Callable[[int, Callable[[], object]], bool]:
    """The function above: test modules cannot import each other under importlib mode."""
    return _killed_at


TINY = (
    "model.latent_dim=5",
    "model.max_length=7",
    "model.encoder.embedding_dim=11",
    "model.encoder.hidden_dim=29",
    "model.decoder.embedding_dim=13",
    "model.decoder.hidden_dim=19",
    "model.decoder.skip_connection=false",
    "data.tokenizer.kind=word",
    "train.batch_size=31",
    "train.max_steps=127",
    "train.validate_every=127",
    "train.device=cpu",
    "train.precision=float32",
    "train.optimizer.learning_rate=0.02",
    "train.objective.beta=0.01",
    "train.objective.free_bits.nats=0.3",
    "train.objective.word_dropout.kind=constant",
    "train.objective.word_dropout.value=0.9",
    "evaluate.num_samples=3",
)
"""A model that trains in two seconds to an auto-encoder whose sentences differ."""


def _tiny_corpus(folder: Path) -> None:
    """Sentences of three or four words: 89 to train on, 7 to select by, 11 to test with."""
    words = ("red big old shy odd", "cat dog fox hen cow bee ant", "eats sees likes")
    first, second, third = (part.split() for part in words)
    lines = [f"{a} {n} {v}" for a in first for n in second for v in third]
    lines = [line + " today" * (number % 3 == 0) for number, line in enumerate(lines)]
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": lines[:89], "valid": lines[89:96], "test": lines[-11:]}
    for name, part in parts.items():
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with train, valid and test files; not to be written to."""
    folder = tmp_path_factory.mktemp("tiny") / "corpus"
    _tiny_corpus(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    """The settings of `tiny_run`, as `load_config` and `--set` take them."""
    return TINY


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path) -> Path:
    """The directory of a finished run on `tiny_data`; not to be written to."""
    # Not at the top: torch takes a second, which most test modules of the repository do not need.
    from textvae.run.data import DataOptions  # noqa: PLC0415
    from textvae.run.experiment import load_config  # noqa: PLC0415
    from textvae.run.plan import plan_run  # noqa: PLC0415
    from textvae.run.training import execute  # noqa: PLC0415

    run = tiny_data.parent / "run"
    plan = plan_run(DataOptions(str(tiny_data)), load_config(None, TINY), run)
    execute(plan, report=lambda line: None)
    return run


@pytest.fixture(scope="session")
def used_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `tiny_run` for verbs that keep something beside the model, such as `evaluate`."""
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("used") / "run"))


@pytest.fixture(scope="session")
def model_kinds(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model directory of each kind, with weights as they are initialized."""
    import torch  # noqa: PLC0415 -- as above

    from textvae.api.text_vae import TextVAE  # noqa: PLC0415
    from textvae.data.tokenizer import BPETokenizerConfig, WordTokenizerConfig  # noqa: PLC0415
    from textvae.model.mixture import GaussianMixture  # noqa: PLC0415
    from textvae.run.experiment import load_config  # noqa: PLC0415

    lines = (tiny_data / "train.txt").read_text(encoding="utf-8").splitlines()
    words = WordTokenizerConfig().train(lines)
    kinds = {
        "plain": [],
        "labels": ["labels.kind=m2"],
        "language model": ["encoder.kind=none", "latent_dim=0"],
        "mixture": ["prior.kind=mixture", "prior.max_components=3"],
        "flow": ["prior.kind=flow", "prior.hidden_dim=17", "prior.num_components=2"],
        "bytes": ["max_length=97"],
    }
    folder = tmp_path_factory.mktemp("kinds")
    for kind, settings in kinds.items():
        overrides = [text for text in TINY if text.startswith("model.")]
        if kind == "language model":
            overrides = [text for text in overrides if ".encoder." not in text]
        overrides += [f"model.{text}" for text in settings]
        config = load_config(None, overrides).model
        labels = ("red", "big") if kind == "labels" else ()
        bpe = BPETokenizerConfig(vocabulary_size=263)
        tokenizer = bpe.train(lines) if kind == "bytes" else words
        model = config.build(tokenizer.vocabulary_size, num_labels=len(labels), seed=7)
        if kind == "labels":
            model.labels.set_counts(torch.tensor([0, 0, 1]))
        if kind == "mixture":
            weights, unit = torch.tensor([0.4, 0.6]).double(), torch.eye(5).double()
            mean = torch.stack([torch.full((5,), value).double() for value in (-0.8, 0.7)])
            factors = torch.stack([0.5 * unit, 0.9 * unit])
            model.prior.set_mixture(GaussianMixture(weights.log(), mean, factors))  # type: ignore[attr-defined]
        if kind == "flow":
            model.prior.set_flow(_small_flow(model.prior))
        TextVAE(model, tokenizer, config, labels=labels).save_pretrained(folder / kind)
    return {kind: folder / kind for kind in kinds}


def _small_flow(prior: Any) -> Any:
    """A flow with small weights, which is a density whatever they are."""
    import torch  # noqa: PLC0415 -- as above

    flow = prior.flow(prior.mean)
    return type(flow)(
        *(0.1 * torch.sin(torch.arange(1.0, 1 + part.numel())).view_as(part) for part in flow)
    )


@pytest.fixture(scope="session")
def verb_arguments(
    tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """For each verb that reads a model, the arguments after it that do some work."""
    folder = tmp_path_factory.mktemp("arguments")
    lines = (tiny_data / "test.txt").read_text(encoding="utf-8").splitlines()
    first, second, third = lines[0], lines[4], lines[9]
    (folder / "latents.jsonl").write_text("[0.1, 0, 0, 0.3, -1]\n[1, 1, 1, 1, 1]\n")
    rows = [f"{line},{'big' if number % 2 else 'red'}" for number, line in enumerate(lines)]
    (folder / "table.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    for name, part in {"some.txt": lines[:5], "others.txt": lines[5:]}.items():
        (folder / name).write_text("\n".join(part) + "\n")
    some, others, table = (str(folder / name) for name in ("some.txt", "others.txt", "table.csv"))
    return {
        "sample": ["-n", "3"],
        "interpolate": ["--steps", "3", first, second],
        "reconstruct": [first, second],
        "encode": [some, "--output", str(folder / "out.jsonl")],
        "decode": [str(folder / "latents.jsonl")],
        "neighbors": [first, "--corpus", others, "-n", "2"],
        "analogy": [first, second, third],
        "attribute": [first, "--from", some, "--to", others],
        "score": [some, "--reference", others, "--samples", "2"],
        "classify": [some, "--labelled", table],
        "evaluate": [some, "--samples", "2", "--output", str(folder / "figures.json")],
        "report": [some, "--output", str(folder / "page.html"), "--overwrite", "--samples", "2"],
        "info": [],
    }


class Ended(NamedTuple):
    """How a forked process ended."""

    code: int
    """Its exit code; minus the signal that killed it."""
    stdout: str
    stderr: str
    peak: int
    """Bytes of memory at the most, those of the parent counted."""
    seconds: float
    """Of the processor."""


class Child:
    """A forked process that runs something with its output in pipes."""

    def __init__(self, action: Callable[[], object]) -> None:
        pipes = [os.pipe(), os.pipe()]
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                for number, (reader, writer) in enumerate(pipes, start=1):
                    os.close(reader)
                    os.dup2(writer, number)
                    os.close(writer)
                code = self._run(action)
            finally:
                os._exit(code)
        for _, writer in pipes:
            os.close(writer)
        self.readers = [reader for reader, _ in pipes]

    @staticmethod
    def _run(action: Callable[[], object]) -> int:
        # What the process of the tests has in their place goes to its own files.
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        try:
            found = action()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
            return 1
        finally:
            sys.stderr.flush()
            if sys.stdout is not None:  # what a test of a closed one has made of it
                with contextlib.suppress(OSError):  # of a reader that went away
                    sys.stdout.flush()  # as the interpreter does when it ends
        return found if isinstance(found, int) else 0

    def send(self, number: int) -> None:
        """A signal; nothing where it has ended."""
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Read what it says until it ends."""
        said = []
        for reader in self.readers:
            with os.fdopen(reader, "rb") as file:
                said.append(file.read().decode("utf-8", "replace"))
        _, status, usage = os.wait4(self.pid, 0)
        return Ended(
            os.waitstatus_to_exitcode(status),
            *said,
            usage.ru_maxrss * 1024,
            usage.ru_utime + usage.ru_stime,
        )


def _needs_posix() -> None:
    if os.name == "nt":
        pytest.skip("signals and pipes of POSIX")


@pytest.fixture(scope="session")
def fork() -> Callable[[Callable[[], object]], Child]:
    """Start something in a forked process."""
    _needs_posix()
    return Child


@pytest.fixture(scope="session")
def command(tiny_run: Path) -> Callable[..., Child]:
    """Start the command line in a forked process that has torch; `tiny_run` has imported it."""
    _needs_posix()
    from textvae.cli.main import program  # noqa: PLC0415 -- as above

    def start(
        *arguments: str, stdin: bytes = b"", before: Callable[[], object] = lambda: None
    ) -> Child:
        def act() -> None:
            with tempfile.TemporaryFile() as given:
                given.write(stdin)
                given.seek(0)
                os.dup2(given.fileno(), 0)
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
            before()
            program.main(list(arguments))

        return Child(act)

    return start


@pytest.fixture(scope="session")
def evaluate_tokens() -> Callable[..., Any]:
    """`evaluate` for arrays of tokens without text: (model, data, num_samples=, seed=, ...)."""
    # Not at the top: torch is imported after the environment is set.
    from textvae.data.tokenizer import WordTokenizerConfig  # noqa: PLC0415 -- torch
    from textvae.evaluate.measurements import MeasuredCorpus  # noqa: PLC0415 -- torch
    from textvae.evaluate.subject import Subject, TokenizedCorpus  # noqa: PLC0415 -- torch
    from textvae.evaluate.summary import Evaluation, evaluate  # noqa: PLC0415 -- torch

    def run(
        model: Any,
        data: Any,
        *,
        num_samples: int,
        num_words: int = 1,
        num_characters: int = 1,
        **settings: Any,
    ) -> Evaluation:
        facts = MeasuredCorpus(
            source="",
            sha256="",
            num_sentences=data.num_sentences,
            num_tokens=data.num_targets,
            num_words=num_words,
            num_characters=num_characters,
            num_unknown=None,
        )
        tokenizer = WordTokenizerConfig().train(["word"])
        settings = {"texts": ["two words"] * data.num_sentences, "max_length": 17} | settings
        subject = Subject(model, tokenizer, TokenizedCorpus(data, facts), **settings)
        return evaluate(subject, num_samples=num_samples)

    return run
