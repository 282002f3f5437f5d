"""The rows of the benchmark that are speeds: feeding, training, sampling, importance weighting."""

import statistics
from collections.abc import Callable, Iterator

import torch
from benchmark_measure import (
    LEARNING_RATE,
    SEED,
    Bench,
    Block,
    Result,
    alternate,
    as_lists,
    build_model,
    build_opponent,
    endless_batches,
    gemm_peak,
    recurrent_product,
    textvae_step,
)
from opponents import (
    Opponent,
    PaddedBatch,
    careful_optimizer,
    collate,
    equal_length_batches,
    importance_weighted,
    naive_optimizer,
    prepared,
    random_batches,
    sample,
    seed_everything,
    train_step,
)
from simulated import give_usual_lengths, simulated_corpus
from torch import Tensor
from torch.utils.data import DataLoader

from textvae.cli.process import KEPT
from textvae.data.batching import PooledBatches, TokenArray
from textvae.generate.decoding import decode_latents
from textvae.generate.strategies import Nucleus, Strategy, Temperature
from textvae.metrics import likelihood
from textvae.model.interfaces import END
from textvae.run.experiment import has_bfloat16
from textvae.train.optimizer import AdamWConfig
from textvae.train.step import flush_denormals

FEEDING_BATCH = 64
TOP_P = 0.9
CUDA_MATRIX = 8192
"""A CPU's matrix would not fill a GPU."""


def gemm(bench: Bench) -> Result:
    """Peak of the matrix product: bfloat16 against float32, where there is bfloat16."""
    single = peak(bench, torch.float32)
    details: tuple[str, ...] = (f"float32 {single / 1e9:.1f} GFLOP/s",)
    if not has_bfloat16(bench.device):
        return Result(f"FLOP/{bench.second}", (single,), (), details)
    half = peak(bench, torch.bfloat16)
    details += (f"bfloat16 {half / 1e9:.1f} GFLOP/s",)
    return Result(f"FLOP/{bench.second}", (half,), (single,), details)


def peak(bench: Bench, dtype: torch.dtype) -> float:
    """Operations per second of a product in a dtype."""
    size = bench.sizes.matrix if bench.device.type == "cpu" else CUDA_MATRIX
    return gemm_peak(bench.device, dtype, size)


def feeding(bench: Bench) -> Result:
    """One epoch of batches of 64: flat array and gather against a DataLoader over lists."""
    corpus = training_corpus(bench)
    sentences, device = as_lists(corpus), bench.device
    start, padding = corpus.start, corpus.start + 1
    corpus = corpus.to(device)
    lengths = corpus.lengths.cpu()

    def ours() -> float:
        order = PooledBatches().order(lengths, FEEDING_BATCH, seed=SEED, epoch=0)
        return float(sum(len(corpus.batch(indices).lengths) for indices in order))

    def from_lists(rows: list[list[int]]) -> PaddedBatch:
        return collate([torch.tensor([start, *ids, END]) for ids in rows], padding)

    # Typed for datasets, but lists are what it is given.
    lists: DataLoader[PaddedBatch] = DataLoader(
        sentences,  # type: ignore[arg-type]
        FEEDING_BATCH,
        shuffle=True,
        collate_fn=from_lists,
    )
    made_before = [torch.tensor([start, *ids, END]) for ids in sentences]
    tensors = random_batches(made_before, FEEDING_BATCH, padding)

    def read(loader: DataLoader[PaddedBatch]) -> Block:
        return lambda: float(sum(len(on(device, batch).lengths) for batch in loader))

    unit = f"sentences/{bench.second}"
    result = alternate(bench, ours, read(lists), unit)
    ratio = statistics.median(alternate(bench, ours, read(tensors), unit).ratios())
    detail = f"against a DataLoader over tensors made beforehand: {ratio:.2f}x"
    return result._replace(details=(detail,))


def train_a(bench: Bench) -> Result:
    """Training: textvae against the trainer as the field writes it."""
    return against(bench, random_batches, naive_optimizer, autocast=False)


def train_b(bench: Bench) -> Result:
    """Training: textvae against a careful trainer; autocast where the device has bfloat16."""
    autocast = has_bfloat16(bench.device)
    result = against(bench, equal_length_batches, careful_optimizer, autocast=autocast)
    precision = "bfloat16 autocast" if autocast else "float32, for there is no bfloat16 here"
    return result._replace(details=(*result.details, f"the opponent: {precision}"))


def against(
    bench: Bench,
    batches: Callable[[list[Tensor], int, int], DataLoader[PaddedBatch]],
    optimizer: Callable[[Opponent, float], torch.optim.Optimizer],
    *,
    autocast: bool,
) -> Result:
    """Targets per second of both, and the fractions of what the machine could do at best."""
    corpus = training_corpus(bench)
    model = build_model(bench.sizes.model, bench.device)
    opponent = build_opponent(model, bench.sizes.model).train()
    loader = batches(prepared(as_lists(corpus), opponent), bench.sizes.batch, opponent.padding)
    theirs = opponent_steps(
        bench, opponent, optimizer(opponent, LEARNING_RATE), loader, autocast=autocast
    )
    ours = textvae_steps(bench, corpus)
    result = alternate(bench, ours, theirs, f"targets/{bench.second}")
    sizes = bench.sizes
    # Of a second: what the arithmetic takes at the peak, and what four chains of products take that
    # have to wait for each other.
    arithmetic = sizes.model.training_flops() / peak(bench, bench.dtype)
    product = recurrent_product(bench.device, bench.dtype, sizes.batch, sizes.model.hidden)
    details = [
        f"fraction of the {bench.precision} {name}: "
        + ", ".join(
            f"{side} {100 * statistics.median(speeds) * seconds:.0f} %"
            for side, speeds in (("textvae", result.ours), ("the opponent", result.theirs))
        )
        for name, seconds in (
            ("peak spent on true targets", arithmetic),
            ("latency floor reached", 4 * product / sizes.batch),
        )
    ]
    return result._replace(details=(*details, f"textvae: {bench.precision}"))


def threads(bench: Bench) -> Result:
    """Training of textvae with two threads against one, in wall-clock time."""
    unit = "targets/second"
    if bench.device.type != "cpu":
        return Result(unit, (), (), ("only on a CPU",))
    block = textvae_steps(bench, training_corpus(bench))

    def on_threads(number: int) -> Block:
        def run() -> float:
            torch.set_num_threads(number)
            return block()

        return run

    try:
        result = alternate(bench, on_threads(2), on_threads(1), unit, wall=True, heap=KEPT)
        return result._replace(details=("two threads of textvae against one, wall-clock time",))
    finally:
        torch.set_num_threads(bench.threads)


def sampling(bench: Bench) -> Result:
    """Ancestral sampling from the prior, against torch.multinomial word by word."""
    return writing(bench, Temperature(), None, bench.sizes.opponent_batches)


def nucleus(bench: Bench) -> Result:
    """Nucleus sampling at 0.9, against sorting; one batch of the opponent's, which is slow."""
    return writing(bench, Nucleus(p=TOP_P), TOP_P, 1)


def writing(bench: Bench, strategy: Strategy, top_p: float | None, batches: int) -> Result:
    """Tokens per second of `decode_latents` against the opponent's loop."""
    sizes = bench.sizes
    model = build_model(sizes.model, torch.device("cpu"))
    give_usual_lengths(model)
    model = model.to(bench.device).eval()
    opponent = build_opponent(model, sizes.model).eval()
    latents = model.prior.sample(sizes.samples, seed=SEED).to(bench.device)
    means: dict[str, float] = {}

    def ours() -> float:
        written = decode_latents(
            model,
            latents,
            strategy,
            seed=SEED,
            max_length=sizes.max_length,
            dtype=bench.dtype,
        )
        tokens = sum(map(len, written.sentences)) + sum(written.finished)
        means["textvae"] = tokens / len(written.sentences)
        return float(tokens)

    def theirs() -> float:
        tokens, sentences = 0, 0
        for part in latents.split(sizes.opponent_batch)[:batches]:  # type: ignore[no-untyped-call]
            rows = sample(opponent, part, max_length=sizes.max_length, top_p=top_p)
            tokens += sum(map(len, rows))
            sentences += len(rows)
        means["the opponent"] = tokens / sentences
        return float(tokens)

    seed_everything(SEED)
    result = alternate(bench, ours, theirs, f"tokens/{bench.second}")
    lengths = ", ".join(f"{name} {mean:.1f}" for name, mean in means.items())
    return result._replace(details=(f"tokens per sentence: {lengths}; textvae: {bench.precision}",))


def importance(bench: Bench) -> Result:
    """Importance-weighted likelihoods, against one sentence at a time through nn.GRU."""
    sizes = bench.sizes
    corpus = simulated_corpus(
        sizes.weighted_sentences,
        sizes.model.vocabulary,
        seed=SEED,
        length=sizes.weighted_length,
    )
    model = build_model(sizes.model, bench.device).eval()
    opponent = build_opponent(model, sizes.model).eval()
    sentences = [ids.to(bench.device) for ids in prepared(as_lists(corpus), opponent)]
    corpus = corpus.to(bench.device)
    means: dict[str, float] = {}

    def ours() -> float:
        posterior = likelihood.encode_corpus(model, corpus, dtype=bench.dtype)
        result = likelihood.importance_weighted(
            model,
            corpus,
            posterior,
            num_samples=sizes.num_samples,
            seed=SEED,
            dtype=bench.dtype,
        )
        means["textvae"] = float(result.nll.mean())
        return float(len(sentences))

    def theirs() -> float:
        estimates = [importance_weighted(opponent, ids, sizes.num_samples) for ids in sentences]
        means["the opponent"] = -statistics.fmean(estimates)
        return float(len(sentences))

    seed_everything(SEED)
    result = alternate(bench, ours, theirs, f"sentences/{bench.second}")
    seconds = [1 / statistics.median(side) for side in (result.ours, result.theirs)]
    nll = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
    return result._replace(
        details=(
            f"seconds per sentence: textvae {seconds[0]:.3g}, the opponent {seconds[1]:.3g}; "
            f"textvae: {bench.precision}",
            f"K {sizes.num_samples}, nats per sentence: {nll}",
        )
    )


def training_corpus(bench: Bench) -> TokenArray:
    """Sentences with the lengths of the Penn Treebank's."""
    return simulated_corpus(bench.sizes.sentences, bench.sizes.model.vocabulary, seed=SEED)


def textvae_steps(bench: Bench, corpus: TokenArray) -> Block:
    """A block of steps of textvae's training loop; each call continues where the last stopped."""
    model = build_model(bench.sizes.model, bench.device).train()
    optimizer = AdamWConfig(learning_rate=LEARNING_RATE).build(model)
    batches = enumerate(endless_batches(corpus.to(bench.device), bench.sizes.batch, SEED))

    def block() -> float:
        targets = 0
        with flush_denormals():
            for _ in range(bench.sizes.steps):
                number, (batch, count) = next(batches)
                textvae_step(model, optimizer, batch, bench.dtype, step=number)
                targets += count
        return float(targets)

    return block


def opponent_steps(
    bench: Bench,
    model: Opponent,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[PaddedBatch],
    *,
    autocast: bool,
) -> Block:
    """A block of an opponent's steps, with batches from its DataLoader."""
    seed_everything(SEED)
    batches = endless(loader)

    def block() -> float:
        targets: Tensor | int = 0
        for _ in range(bench.sizes.steps):
            batch = next(batches)
            targets += batch.lengths.sum()
            train_step(model, optimizer, on(bench.device, batch), autocast=autocast)
        return float(targets)

    return block


def endless(loader: DataLoader[PaddedBatch]) -> Iterator[PaddedBatch]:
    """Epoch after epoch."""
    while True:
        yield from loader


def on(device: torch.device, batch: PaddedBatch) -> PaddedBatch:
    """The batch on a device; on the CPU it is there already."""
    return PaddedBatch(*(tensor.to(device) for tensor in batch))
