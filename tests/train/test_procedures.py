"""Procedures: the clocks of their parts, what an update leaves alone, and when they end."""

from typing import Any, get_args

import msgspec
import pytest
import torch
from small import drawn_corpus, small_config
from torch import nn

from textvae.config import decode
from textvae.data.batching import TokenArray
from textvae.errors import ConfigError
from textvae.model.initialization import initialize
from textvae.model.vae import VAE
from textvae.randomness import key
from textvae.train.config import StepSettings, TrainConfig
from textvae.train.loop import train
from textvae.train.objective import NoFreeBits, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig
from textvae.train.procedures import (
    AggressiveProcedure,
    JointProcedure,
    Part,
    PretrainingProcedure,
    ProcedureConfig,
    ProcedureState,
    Update,
    UpdateLoss,
)
from textvae.train.rate import ControlledRate, RateState
from textvae.train.schedules import Clock, ConstantSchedule, LinearSchedule
from textvae.train.step import StepResult, train_step

V, E, H, Z, N, B = 23, 5, 11, 2, 61, 13
AIM = ObjectiveConfig(
    kl_weight=LinearSchedule(share=0.5),
    free_bits=NoFreeBits(),
    word_dropout=ConstantSchedule(value=0.1),
)
KINDS = get_args(ProcedureConfig)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def model() -> VAE:
    config = small_config(Z, E, H, decoder={"tie_embeddings": False})
    return config.build(V, seed=1)


def corpus(size: int = N) -> TokenArray:
    return drawn_corpus("train", size, V)


def update(
    vae: VAE, optimizer: torch.optim.Optimizer, step: int = 0, part: Part | None = None
) -> StepResult:
    batch, clock = corpus().batch(torch.arange(B) + step), Clock(step, step, 10)
    return train_step(vae, optimizer, batch, StepSettings(AIM, seed=1), clock, part=part)


def parts(vae: VAE) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Copies of the parameters of the encoder, and of the rest."""
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
    return encoder, {name: value for name, value in state.items() if name not in encoder}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- what all of them do ---------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("total", [1, 2, 3, 97])
def test_every_stage_is_within_its_part(kind: Any, total: int) -> None:
    for step in range(total):
        clock = kind().clock(step, total)
        assert clock.step == step
        assert 0 <= clock.stage_step < clock.stage_total <= total
    assert not kind().clock(total - 1, total).autoencoder, "a run ends as a variational one"
    assert 0.0 <= kind().settled(0.5, total) <= total


@every_kind
def test_every_kind_can_be_named_in_a_file(kind: Any) -> None:
    assert decode({"kind": kind.__struct_config__.tag}, ProcedureConfig, source="test") == kind()


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "pretraining", "share": 1.0},
        {"kind": "pretraining", "share": 0.0},
        {"kind": "aggressive", "max_updates": 0},
        {"kind": "aggressive", "check_every": 0},
        {"kind": "lazy"},
    ],
)
def test_values_that_mean_nothing_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        decode(value, ProcedureConfig, source="test")


# -- a part of the model ---------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["encoder", "rest"])
def test_an_update_of_a_part_leaves_the_other_and_its_moments_alone(part: Any) -> None:
    vae = model()
    optimizer = AdamWConfig(weight_decay=0.1).build(vae)
    update(vae, optimizer)
    before = parts(vae)
    moments = {p: s["exp_avg"].clone() for p, s in optimizer.state.items()}
    update(vae, optimizer, 1, part=part)
    after, moved = parts(vae), part == "encoder"
    assert equal(before[0], after[0]) is not moved
    assert equal(before[1], after[1]) is moved
    for name, parameter in vae.named_parameters():
        same = torch.equal(moments[parameter], optimizer.state[parameter]["exp_avg"])
        assert same is not (name.startswith("encoder.") == moved), name


def test_an_update_of_both_parts_is_that_of_all() -> None:
    norms = []
    divisions: list[list[Part | None]] = [[None], ["encoder", "rest"]]
    for division in divisions:
        vae, total = model(), 0.0
        for part in division:
            update(vae, torch.optim.SGD(vae.parameters(), lr=0.0), part=part)
            gradients = [p.grad for p in vae.parameters() if p.grad is not None]
            total += sum(float(gradient.double().square().sum()) for gradient in gradients)
        norms.append(total)
    assert norms[0] == pytest.approx(norms[1])


# -- pre-training ----------------------------------------------------------------------------------


def test_each_part_of_a_pretrained_run_has_its_own_clock() -> None:
    procedure = PretrainingProcedure(share=0.3)
    assert procedure.clock(0, 20) == Clock(0, 0, 6, autoencoder=True)
    assert procedure.clock(5, 20) == Clock(5, 5, 6, autoencoder=True)
    assert procedure.clock(6, 20) == Clock(6, 0, 14)
    assert procedure.clock(19, 20) == Clock(19, 13, 14)
    assert procedure.settled(0.5, 20) == 6 + 7
    assert procedure.clock(0, 1) == Clock(0, 0, 1)


def test_between_the_parts_the_decoder_begins_again_and_the_encoder_goes_on() -> None:
    vae, procedure = model(), PretrainingProcedure(share=0.3)
    optimizer = AdamWConfig().build(vae)
    for step in range(2):
        update(vae, optimizer, step)
    encoder, rest = parts(vae)
    for step in (0, 5, 7, 19):
        procedure.prepare(vae, optimizer, step, 20, 1)
        assert equal(parts(vae)[1], rest)
    assert len(optimizer.state) == len(list(vae.parameters()))
    procedure.prepare(vae, optimizer, 6, 20, 1)
    assert equal(parts(vae)[0], encoder)
    assert isinstance(vae.decoder, nn.Module)
    assert isinstance(vae.encoder, nn.Module)
    assert set(optimizer.state) == set(vae.encoder.parameters())
    expected, untrained = model().decoder, model().decoder
    assert isinstance(expected, nn.Module)
    assert isinstance(untrained, nn.Module)
    initialize(expected, key(1, "decoder reset"))
    assert equal(vae.decoder.state_dict(), expected.state_dict())
    weights = vae.decoder.get_parameter("layers.0.recurrent_weight")
    assert not torch.equal(weights, untrained.get_parameter("layers.0.recurrent_weight"))
    update(vae, optimizer, 3)
    ages = {float(optimizer.state[p]["step"]) for p in vae.decoder.parameters()}
    assert ages == {1.0}
    assert {float(optimizer.state[p]["step"]) for p in vae.encoder.parameters()} == {3.0}


def test_an_autoencoder_pays_nothing_for_its_kl_and_shows_no_target_rate() -> None:
    vae = model()
    aim = msgspec.structs.replace(AIM, kl_weight=ConstantSchedule(), rate=ControlledRate())
    batch, optimizer = corpus().batch(torch.arange(B)), torch.optim.SGD(vae.parameters(), lr=0.0)
    state = RateState(0.5, 0.5)
    settings, clock = StepSettings(aim, seed=1), Clock(0, 0, 3, autoencoder=True)
    made = train_step(vae, optimizer, batch, settings, clock, rate=state)
    assert made.loss.kl_weight == 0.0
    assert made.rate == state
    total = float(made.terms.reconstruction.total.detach())
    assert float(made.loss.value) == pytest.approx(total / B)


def test_a_pretrained_run_anneals_and_selects_after_its_autoencoder(tmp_path: Any) -> None:
    config = TrainConfig(
        batch_size=N,
        max_steps=20,
        validate_every=1,
        log_every=1,
        optimizer=AdamWConfig(learning_rate=0.03),
        objective=msgspec.structs.replace(AIM, kl_weight=LinearSchedule(share=0.5)),
        procedure=PretrainingProcedure(share=0.3),
    )
    train(model(), corpus(), corpus(17), config, seed=0, run=tmp_path, report=lambda _: None)
    data = (tmp_path / "metrics.jsonl").read_bytes()
    lines = [msgspec.json.decode(line) for line in data.splitlines()]
    weights = [line["kl_weight"] for line in lines if "kl_weight" in line]
    assert weights == pytest.approx([0.0] * 6 + [min(1.0, s / 7) for s in range(14)])
    selected = [line["step"] for line in lines if line.get("selected")]
    assert min(selected) == 13
    losses = [line["reconstruction"] for line in lines if "reconstruction" in line]
    assert losses[6] > losses[5], "a new decoder knows nothing"


# -- aggressive ------------------------------------------------------------------------------------


ORDER = [torch.arange(B) + 4 * i for i in range(11)]
FIRST = Clock(0, 0, 100)
NEW = ProcedureState()
WORDS = 9.0


def updates(
    losses: list[float], clock: Clock = FIRST, state: ProcedureState = NEW, share: float = 0.1
) -> list[Update]:
    """The updates of a step in which they have these losses per token."""
    procedure = AggressiveProcedure(share=share, max_updates=12, check_every=3)
    made, answers, lengths = list[UpdateLoss](), iter(losses), torch.tensor([3, 5, 7])
    asked = []
    for update in procedure.updates(made, ORDER, clock, state, seed=1):
        asked.append(update)
        value = torch.tensor(next(answers, 0.0) * float(lengths.double().mean()))
        made.append(UpdateLoss(value, lengths))
    return asked


def names(steps: list[Update]) -> list[Part | None]:
    return [update.part for update in steps]


def test_the_encoder_is_updated_until_its_loss_stops_falling_then_the_rest_once() -> None:
    assert names(updates([9, 9, 9, 8, 8, 8, 7, 9, 8.5, 1])) == ["encoder"] * 9 + ["rest"]
    falling = [WORDS - i / 10 for i in range(50)]
    assert names(updates(falling)) == ["encoder"] * 12 + ["rest"], "at most max_updates"
    rising = [WORDS + i / 10 for i in range(50)]
    assert names(updates(rising)) == ["encoder"] * 6 + ["rest"]


def test_the_first_and_the_last_batch_are_those_of_the_step_and_others_are_drawn() -> None:
    falling = [WORDS - i / 10 for i in range(50)]
    first, again, later = updates(falling), updates(falling), updates(falling, Clock(1, 1, 100))
    assert first[0].rows is None
    assert first[-1].rows is None
    drawn, drawn_again, drawn_later = (
        [tuple(update.rows.tolist()) for update in step if update.rows is not None]
        for step in (first, again, later)
    )
    assert len(set(drawn)) > 2
    assert set(drawn) <= {tuple(rows.tolist()) for rows in ORDER}
    assert drawn == drawn_again
    assert drawn != drawn_later
    seeds, seeds_again, seeds_later = (
        [update.seed for update in step] for step in (first, again, later)
    )
    assert seeds == seeds_again
    encoder_seeds = [*seeds[:-1], *seeds_later[:-1]]
    assert len(set(encoder_seeds)) == len(encoder_seeds), "no two updates share their noise"
    assert seeds[-1] is None


def test_it_is_joint_after_its_share_and_after_it_has_stopped_being_aggressive() -> None:
    stopped = ProcedureState(aggressive=False)
    for clock, state in ((Clock(10, 10, 100), NEW), (FIRST, stopped)):
        assert updates([1.0], clock, state) == [Update()]
    assert list(JointProcedure().updates([], ORDER, FIRST, NEW, seed=1)) == [Update()]


def test_it_is_aggressive_while_the_mutual_information_grows() -> None:
    vae, procedure, said = model(), AggressiveProcedure(), list[str]()

    def after(state: ProcedureState) -> ProcedureState:
        return procedure.after_validation(vae, corpus(), state, seed=1, report=said.append)

    with torch.no_grad():
        vae.get_parameter("encoder.posterior_weight")[:Z].mul_(1000.0)
    grown = after(ProcedureState())
    assert grown.aggressive
    assert grown.mutual_information > 0.5
    same = after(grown)
    assert same == ProcedureState(False, grown.mutual_information)
    assert after(same._replace(mutual_information=0.0)).aggressive is False, "it does not return"
    assert len(said) == 2
    assert (
        JointProcedure().after_validation(vae, corpus(), grown, seed=1, report=said.append) is grown
    )


def test_an_aggressive_encoder_is_ahead_of_a_joint_one() -> None:
    """The bound after few decoder updates is tighter; algorithm 1 is made for that."""
    found = []
    for procedure in (JointProcedure(), AggressiveProcedure(share=0.9, check_every=5)):
        config = TrainConfig(
            batch_size=B,
            max_steps=10,
            validate_every=10,
            optimizer=AdamWConfig(learning_rate=0.01),
            objective=ObjectiveConfig(
                kl_weight=ConstantSchedule(value=0.05), free_bits=NoFreeBits()
            ),
            procedure=procedure,
        )
        vae = model()
        train(vae, corpus(), corpus(), config, seed=0, run=None, report=lambda _: None)
        q = vae.encoder(*_read(corpus()), noise=None, dtype=torch.float32)
        found.append(float(q.mean.detach().var(0).sum()))
    assert found[1] > found[0], "its means have moved further apart"


def _read(data: TokenArray) -> tuple[torch.Tensor, torch.Tensor]:
    batch = data.batch(torch.arange(data.num_sentences))
    return batch.targets, batch.lengths
