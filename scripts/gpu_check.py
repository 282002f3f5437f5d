"""All that is to be known from a GPU, in parts of a few minutes, each with a limit of its own.

python scripts/gpu_check.py --json gpu.json --table gpu.md [--parts tests,step] [--data PTB]
python scripts/gpu_check.py --dry-run        every part tiny, on the pretend device of the tests

The parts run one after the other, each in a process of its own. One that reaches its limit gets
SIGINT, as which training saves, and what it has measured until then is kept. With --parts a second
call continues; the tables go into docs/results/gpu.md. Needs torch and what textvae imports, but
not datasets; the tests need pytest.
"""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import torch
from provenance import commit, processor
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from textvae.data.batching import TokenArray
from textvae.kernels.gru import GRUWeights, gru_reference, gru_sequence, gru_states, project_inputs
from textvae.kernels.linear_cross_entropy import linear_cross_entropy
from textvae.model.vae import VAE
from textvae.randomness import key, normals
from textvae.run.experiment import load_config
from textvae.train.config import TrainConfig
from textvae.train.loop import train

ROOT = Path(__file__).parents[1]
GRACE = 30
"""Seconds that a part has to save after SIGINT."""
BENCHMARK_ROWS = ("train_a", "train_b", "sample", "nucleus", "importance", "gemm")
ONE_SEED_SECONDS = 100
"""The other seeds of ptb run only where the first took less."""
PROFILED = 12
"""Rows of the table of a profile."""
RECIPES = (None, "ptb", "ptb_long", "ptb_gpu")


class Row(NamedTuple):
    """One figure."""

    part: str
    name: str
    value: float | str
    unit: str = ""
    note: str = ""


class Check(NamedTuple):
    """The arguments of the command line."""

    dry_run: bool
    data: str
    seeds: int
    cuda_graph: bool


Rows = Iterator[Row]


def run_tests(check: Check) -> Rows:
    """`pytest -m gpu`, failures by name; a dry run only collects them."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "tests/cuda"]
    command += ["--collect-only", "-q"] if check.dry_run else ["-v", "--tb=line"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            name, _, outcome = line.strip().partition(" ")
            if "::" in name and outcome.startswith(("FAILED", "ERROR")):
                yield Row("tests", name.rpartition("/")[2], outcome.split()[0])
            elif " in " in line and ("passed" in line or "failed" in line or "collected" in line):
                yield Row("tests", "all", line.strip("= \n"))


def run_benchmark(check: Check) -> Rows:
    """Ratios to the trainers that users of torch write, row by row."""
    names = ("gemm",) if check.dry_run else BENCHMARK_ROWS
    for name in names:
        command = [sys.executable, "scripts/benchmark.py", "--only", name, "--json", "-"]
        command += ["--small", "--repeats", "1"] if check.dry_run else ["--device", "cuda"]
        command += [] if check.dry_run else ["--repeats", "3"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode:
            yield Row("bench", name, "failed", note=ended.stderr.strip()[-200:])
            continue
        (row,) = json.loads(ended.stdout)["rows"]
        spread = f"{row['least']:.3g} to {row['greatest']:.3g}" if row.get("ratios") else ""
        value = row["median"] if row.get("ratios") else row["ours"][0]
        unit = "x" if row.get("ratios") else row["unit"]
        yield Row("bench", name, value, unit, "; ".join([spread, *row["details"]]).strip("; "))


def run_kernels(check: Check) -> Rows:
    """Recurrences and the cross-entropy: error against float64, and microseconds."""
    for hidden in (13,) if check.dry_run else (128, 256, 320, 512, 640, 1024):
        for dtype in (torch.float32, torch.bfloat16):
            yield from recurrences(check, hidden, dtype)
    for dtype in (torch.float32, torch.bfloat16):
        yield cross_entropy(check, dtype)


def recurrences(check: Check, hidden: int, dtype: torch.dtype) -> Rows:
    """CuDNN, and the loop over positions that CPUs have."""
    rows, steps = (3, 4) if check.dry_run else (32, 22)
    shapes = {"x": (rows, steps, hidden), "h": (rows, hidden), "w": (3 * hidden, hidden)}
    shapes |= {"r": (3 * hidden, hidden), "b": (3 * hidden,), "c": (hidden,)}
    leaves = [values(name, *shape) for name, shape in shapes.items()]
    inputs, initial, *parameters = leaves
    weights = GRUWeights(*parameters)
    doubled = [leaf.detach().double() for leaf in leaves]
    exact = gru_reference(doubled[0], doubled[1], GRUWeights(*doubled[2:]))

    def cudnn() -> Tensor:
        return gru_sequence(inputs, initial, weights, dtype=dtype)

    def loop() -> Tensor:
        projected = project_inputs(inputs, weights, dtype=dtype)
        return gru_states(projected, initial, weights, dtype=dtype)

    for path in (cudnn, loop):
        error = float((path().detach().double() - exact).abs().max())
        seconds = seconds_of(path, leaves, check)
        note = f"largest error {error:.1e}; forwards and backwards"
        name = f"{path.__name__} H {hidden} {str(dtype).removeprefix('torch.')}"
        yield Row("kernels", name, 1e6 * seconds / steps, "us per position", note)


def cross_entropy(check: Check, dtype: torch.dtype) -> Row:
    """The vocabulary projection of a batch of 32, with its gradients."""
    count, words, size = (12, 101, 7) if check.dry_run else (704, 10_000, 512)
    leaves = [values("f", count, size), values("w", words, size), values("b", words)]
    targets = torch.arange(count, device="cuda") % words

    def total() -> Tensor:
        features, weight, bias = leaves
        return linear_cross_entropy(features, weight, bias, targets, dtype=dtype).total

    name = f"cross-entropy {count} x {words} {str(dtype).removeprefix('torch.')}"
    return Row("kernels", name, 1e6 * seconds_of(total, leaves, check), "us", "with gradients")


def values(name: str, *shape: int) -> Tensor:
    """Numbers on the device, of a size that suits a matrix of this shape."""
    count = torch.Size(shape).numel()
    numbers = normals(key(1, name), torch.arange(count), lanes=1).view(shape)
    scaled: Tensor = numbers / float(shape[-1]) ** 0.5
    return scaled.to("cuda").requires_grad_()


def seconds_of(path: Callable[[], Tensor], leaves: list[Tensor], check: Check) -> float:
    """The time of a path forwards and backwards, after some rounds that do not count."""
    warm_up, repeats = (1, 1) if check.dry_run else (5, 30)
    for _ in range(warm_up):
        torch.autograd.grad(path().sum(), leaves)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        torch.autograd.grad(path().sum(), leaves)
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


def run_steps(check: Check) -> Rows:
    """Training steps of recipes, eager and captured."""
    tiny = ["model.encoder.hidden_dim=7", "model.decoder.hidden_dim=11", "model.latent_dim=3"]
    first, last = (4, 6) if check.dry_run else (40, 240)
    words, vocabulary = 21, (101 if check.dry_run else 10_000)
    ids = [[2 + (31 * i + 7 * t) % (vocabulary - 2) for t in range(words)] for i in range(2_000)]
    data = TokenArray.from_lists(ids, vocabulary)
    for recipe in RECIPES[:1] if check.dry_run else RECIPES:
        for cuda_graph in (False, True):
            settings = ["train.device=cuda", "train.precision=bfloat16", "train.batch_size=32"]
            settings += [f"train.cuda_graph={str(cuda_graph).lower()}", *tiny * check.dry_run]
            config = load_config(None, settings, recipe=recipe)
            seconds = []
            for steps in (first, last):
                fields = {"max_steps": steps, "log_every": 10_000, "calibrate": False}
                fields |= {"validate_every": steps, "save_every": steps}
                training = msgspec.structs.replace(config.train, **fields)
                model = config.model.build(vocabulary, seed=1).to("cuda")
                torch.cuda.synchronize()
                started = time.perf_counter()
                train(model, data, data.head(3), training, seed=0, run=None, report=lambda s: None)
                torch.cuda.synchronize()
                seconds.append(time.perf_counter() - started)
            step = (seconds[1] - seconds[0]) / (last - first)
            name = f"{recipe or 'default'} {'captured' if cuda_graph else 'eager'}"
            speed = f"{32 * (words + 1) / max(step, 1e-9):,.0f} targets/s"
            yield Row("step", name, 1e3 * step, "ms", speed)
        # The last model, eager: where a step's time on the device goes.
        fields |= {"max_steps": last - first, "validate_every": last, "cuda_graph": False}
        training = msgspec.structs.replace(config.train, **fields)
        yield from profiled(recipe or "default", model, data, training, last - first)


def profiled(name: str, model: VAE, data: TokenArray, training: TrainConfig, steps: int) -> Rows:
    """The operations that take most of the device's time, microseconds per step."""
    on_cuda = torch.cuda.is_available() and torch.version.cuda is not None
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_cuda]
    with profile(activities=activities) as profiler:
        train(model, data, data.head(3), training, seed=0, run=None, report=lambda s: None)
    averages = profiler.key_averages()

    def microseconds(event: Any) -> float:
        return float(event.self_device_time_total if on_cuda else event.self_cpu_time_total)

    whole = max(sum(map(microseconds, averages)), 1e-9)
    for event in sorted(averages, key=microseconds, reverse=True)[:PROFILED]:
        share = f"{100 * microseconds(event) / whole:.1f} %; {event.count / steps:.1f} calls a step"
        yield Row("step", f"{name}: {event.key[:60]}", microseconds(event) / steps, "us", share)


def run_ptb(check: Check) -> Rows:
    """Train `ptb_gpu` on the Penn Treebank and measure it.

    The first seed has the GPU to itself, so that its time counts. Where it took under 100 s, the
    others run together, as processes that share the GPU.
    """
    started = time.perf_counter()
    yield from train_and_measure(check, [0])
    seconds = time.perf_counter() - started
    others = list(range(1, check.seeds))
    if others and seconds < ONE_SEED_SECONDS:
        yield from train_and_measure(check, others)
    elif others:
        yield Row("ptb", "other seeds", "not run", "", f"the first took {seconds:.0f} s")


def train_and_measure(check: Check, seeds: list[int]) -> Rows:
    """Train these seeds side by side, then measure them side by side."""
    program = [sys.executable, "-m", "textvae"]
    graph = f"train.cuda_graph={str(check.cuda_graph).lower()}"
    outputs = {seed: str(Path("runs") / f"ptb_gpu_{seed}") for seed in seeds}
    commands = {}
    for seed, output in outputs.items():
        command = [*program, "train", check.data, "--recipe", "ptb_gpu", "--seed", str(seed)]
        commands[seed] = [*command, "--output", output, "--set", graph, "--json"]
    trained = together(commands)
    for seed, ended in trained.items():
        note = f"exit code {ended.code}; {len(seeds)} at once"
        yield Row("ptb", f"seed {seed}: training", ended.seconds, "s", note)
    ready = [seed for seed in seeds if trained[seed].code == 0]
    options = ["--json", "--precision", "bfloat16", "--evaluators", "likelihood,latent"]
    measured = together({s: [*program, "evaluate", outputs[s], *options] for s in ready})
    for seed, ended in measured.items():
        figures = json.loads(ended.output) if ended.code == 0 else {}
        for name in ("perplexity", "kl", "mutual_information", "active_units", "nll"):
            if name in figures:
                yield Row("ptb", f"seed {seed}: {name}", figures[name])


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    output: str
    seconds: float


def together(commands: dict[int, list[str]]) -> dict[int, Ended]:
    """Run commands at the same time; each writes into a file, as a full pipe would stop it."""
    started, running = time.perf_counter(), {}
    for seed, command in commands.items():
        file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 -- closed below
        running[seed] = subprocess.Popen(command, cwd=ROOT, stdout=file), file
    ended = {}
    for seed, (process, file) in running.items():
        code = process.wait()
        seconds = time.perf_counter() - started
        with file:
            file.seek(0)
            ended[seed] = Ended(code, file.read(), seconds)
    return ended


def dry_run_ptb(check: Check) -> Rows:
    """Train 20 steps of `ptb_gpu` with small sizes."""
    sizes = ["model.encoder.hidden_dim=7", "model.decoder.hidden_dim=11", "model.latent_dim=3"]
    sizes += ["model.encoder.embedding_dim=5", "model.decoder.embedding_dim=5"]
    fields = ["train.batch_size=5", "train.max_steps=20", "train.validate_every=20"]
    fields += ["train.device=cuda", "train.precision=bfloat16"]
    config = load_config(None, [*sizes, *fields], recipe="ptb_gpu")
    ids = [[2 + (31 * i + 7 * t) % 57 for t in range(i % 7)] for i in range(61)]
    data = TokenArray.from_lists(ids, 59)
    model = config.model.build(59, seed=1).to("cuda")
    result = train(model, data, data.head(7), config.train, seed=0, run=None, report=lambda s: None)
    yield Row("ptb", "steps", float(result.steps))


class Part(NamedTuple):
    """A part of the check, and after how many seconds it is stopped."""

    run: Callable[[Check], Rows]
    seconds: int


PARTS = {
    "tests": Part(run_tests, 120),
    "step": Part(run_steps, 100),
    "bench": Part(run_benchmark, 150),
    "kernels": Part(run_kernels, 60),
    "ptb": Part(run_ptb, 300),
}
"""In order of worth."""


def run_with_limit(name: str, seconds: int, arguments: list[str], lines: Path) -> list[Row]:
    """Run a part in a process of its own; its rows, also where it does not come to its end."""
    lines.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--only-part", name, "--lines", str(lines), *arguments]
    with subprocess.Popen(command, start_new_session=True) as process:
        ending = ""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            ending = f"stopped after {seconds} s"
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        if not ending and process.returncode:
            ending = f"exit code {process.returncode}"
    rows = [Row(**json.loads(line)) for line in lines.read_text(encoding="utf-8").splitlines()]
    return [*rows, Row(name, "end", ending)] if ending else rows


def facts() -> dict[str, str]:
    """The machine and the versions."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"device": device, "processor": processor(), **versions, "commit": commit()}


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| part | what | value | unit | note |", "|---|---|---|---|---|"]
    for row in rows:
        value = row.value if isinstance(row.value, str) else f"{row.value:.4g}"
        lines.append(f"| {row.part} | {row.name} | {value} | {row.unit} | {row.note} |")
    return "\n".join(lines) + "\n"


def run_dry(check: Check, names: list[str]) -> list[Row]:
    """Every part in this process, on the pretend device."""
    sys.path.append(str(ROOT / "tests" / "cuda"))
    from pretend import PretendCuda  # type: ignore[import-not-found]  # noqa: PLC0415

    rows: list[Row] = []
    for name in names:
        part = dry_run_ptb if name == "ptb" else PARTS[name].run
        in_other_processes = name in {"tests", "bench"}
        with contextlib.nullcontext() if in_other_processes else PretendCuda():
            rows += part(check)
    return rows


@click.command()
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Which, in this order.")
@click.option("--json", "json_file", metavar="FILE", help="All rows and the machine as JSON.")
@click.option("--table", "table_file", metavar="FILE", help="The same as a Markdown table.")
@click.option("--data", default="PTB", show_default=True, help="The Penn Treebank's directory.")
@click.option("--seeds", default=3, show_default=True, help="Runs of ptb, if the first is quick.")
@click.option("--cuda-graph", is_flag=True, help="Train ptb with train.cuda_graph=true.")
@click.option("--limit", multiple=True, metavar="PART=SECONDS", help="Another limit of a part.")
@click.option("--dry-run", is_flag=True, help="Every part tiny, on the pretend device.")
@click.option("--only-part", hidden=True)
@click.option("--lines", "lines_file", hidden=True)
def main(
    parts: str,
    json_file: str | None,
    table_file: str | None,
    data: str,
    seeds: int,
    cuda_graph: bool,
    limit: tuple[str, ...],
    dry_run: bool,
    only_part: str | None,
    lines_file: str | None,
) -> None:
    """Check and measure textvae on a GPU."""
    check = Check(dry_run, data, seeds, cuda_graph)
    if only_part is not None and lines_file is not None:
        with Path(lines_file).open("w", encoding="utf-8", buffering=1) as file:
            for row in PARTS[only_part].run(check):
                file.write(json.dumps(row._asdict()) + "\n")
        return
    names = parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise click.BadParameter(f"{unknown[0]}: the parts are {', '.join(PARTS)}")
    if dry_run:
        rows = run_dry(check, names)
    else:
        if not torch.cuda.is_available():
            raise click.ClickException("there is no CUDA device: --dry-run needs none")
        limits = {name: PARTS[name].seconds for name in names}
        limits |= {name: int(value) for name, _, value in (item.partition("=") for item in limit)}
        arguments = ["--data", data, "--seeds", str(seeds), *["--cuda-graph"] * cuda_graph]
        rows = []
        for name in names:
            lines = Path(f"gpu_check_{name}.jsonl")
            rows += run_with_limit(name, limits[name], arguments, lines)
    print(table(rows))
    if json_file is not None:
        text = json.dumps({**facts(), "rows": [row._asdict() for row in rows]}, indent=2)
        Path(json_file).write_text(text + "\n", encoding="utf-8")
    if table_file is not None:
        Path(table_file).write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
