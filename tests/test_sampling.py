"""Generation and reconstruction with an untrained model: who gets which noise, what is held fixed, what fails alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcdvae.diffusion.ddpm_solvers import posterior_sigma
from dpcdvae.errors import InputError
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.priors.normal import NormalPrior
from dpcdvae.sampling.atom_conditions import AtomConditions, parse_formula
from dpcdvae.sampling.conditional_latents import ConditionalLatents
from dpcdvae.sampling.decoding import decode
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.sampling.generation import generate, reconstruct
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import ATOMIC_NUMBERS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import wrap
from dpcdvae.tensors.noise import CrystalRandom
from tensors import KnownStatistics, batch_of, random_crystal, table_of, tiny_model


@pytest.fixture
def model() -> CDVAE:
    return tiny_model(torch.float32)


def atoms(*symbols: str) -> list[int]:
    return [ATOMIC_NUMBERS[symbol] for symbol in symbols]


def ids_of(result: GenerationResult) -> list[str]:
    return sorted([c.id for c in result.crystals] + [f.id for f in result.failures])


def replace_denoise(model: CDVAE, answer: Callable[[CrystalBatch, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    model.denoise = answer  # type: ignore[method-assign]


def record(model: CDVAE) -> list[list[dict[str, Any]]]:
    """A denoiser that answers without any arithmetic that a batch could disturb, and keeps what each crystal was shown.

    Types go round with the steps, so what it is shown must change with what it said.
    """
    shown: list[list[dict[str, Any]]] = []

    def answer(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        sizes = noisy.num_atoms.tolist()
        shown.append(
            [
                {"coords": coords, "types": types, "lattice": lattice, "z": latent, "time": float(t)}
                for coords, types, lattice, latent, t in zip(
                    noisy.frac_coords.split(sizes),
                    noisy.atomic_numbers.split(sizes),
                    noisy.lattice,
                    z,
                    time,
                    strict=True,
                )
            ]
        )
        logits = torch.nn.functional.one_hot(noisy.atomic_numbers % 100, 100).to(z)
        return 0.1 * torch.sin(noisy.frac_coords), logits

    replace_denoise(model, answer)
    return shown


def assert_shown_the_same(ours: dict[str, Any], theirs: dict[str, Any], *, exact: bool = True) -> None:
    for key, value in ours.items():
        if isinstance(value, float) or value.dtype == torch.int64:
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[key])), key
        else:
            torch.testing.assert_close(value, theirs[key], rtol=0, atol=0 if exact else 1e-5, msg=key)


# generation


def test_generate_gives_as_many_as_asked(model: CDVAE) -> None:
    result = generate(model, 7, seed=3, steps=3)
    assert ids_of(result) == [f"3-{k}" for k in range(7)]
    for crystal in result.crystals:
        assert crystal.problem() is None
        assert 1 <= crystal.num_atoms <= 8
        assert ((crystal.frac_coords >= 0) & (crystal.frac_coords < 1)).all()
        assert set(crystal.atomic_numbers) <= set(range(1, 101))
    assert ids_of(generate(model, 0)) == []


def test_the_same_seed_gives_the_same_crystals(model: CDVAE) -> None:
    first, again, other = (generate(model, 4, seed=seed, steps=5) for seed in (1, 1, 2))
    for a, b, c in zip(first.crystals, again.crystals, other.crystals, strict=False):
        assert np.array_equal(a.frac_coords, b.frac_coords)
        assert np.array_equal(a.lattice, b.lattice)
        assert not np.array_equal(a.lattice, c.lattice)


@pytest.mark.parametrize("options", [{}, {"num_atoms": 3}, {"formula": "SrTiO3"}], ids=["free", "3 atoms", "SrTiO3"])
def test_crystal_k_gets_its_noise_in_any_batch(model: CDVAE, options: dict[str, Any]) -> None:
    """Coordinates bit by bit; z too, but the decoded cell only up to the rounding of a matrix product."""
    shown = record(model)
    generate(model, 9, seed=5, steps=4, **options)
    everyone = [[step[k] for step in shown] for k in range(9)]
    assert len({tuple(history[0]["z"].tolist()) for history in everyone}) == 9
    shown.clear()
    generate(model, 9, seed=5, steps=4, batch_size=2, **options)
    pairs = [[step[k % 2] for step in shown[4 * (k // 2) : 4 * (k // 2) + 4]] for k in range(9)]
    shown.clear()
    generate(model, 2, seed=5, steps=4, first=6, **options)
    late = [[step[k] for step in shown] for k in range(2)]
    for ours, theirs in [*zip(everyone, pairs, strict=True), (everyone[6], late[0]), (everyone[7], late[1])]:
        assert len(ours) == len(theirs) == 4
        for a, b in zip(ours, theirs, strict=True):
            assert_shown_the_same({k: v for k, v in a.items() if k != "lattice"}, b)
            assert_shown_the_same({"lattice": a["lattice"]}, b, exact=False)


def test_every_step_and_crystal_has_noise_of_its_own() -> None:
    """Solved from Eq. 7 with a network that predicts nothing: standard normal, less each crystal's mean."""
    model = tiny_model(torch.float64)
    shown: list[Tensor] = []

    def nothing(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        shown.append(noisy.frac_coords.unflatten(0, (len(noisy), 8)))
        return torch.zeros_like(noisy.frac_coords), torch.zeros(len(noisy.frac_coords), 100)

    replace_denoise(model, nothing)
    generate(model, 30, num_atoms=8)
    bars = model.diffusion.alphas_cumprod
    assert isinstance(bars, list)
    noises = [shown[0]]
    for t in range(20, 1, -1):
        before, after = shown[20 - t], shown[21 - t]
        noises.append((after - wrap(before) / bars[t] ** 0.5) / posterior_sigma(bars[t], bars[t - 1]))
    drawn = torch.stack(noises)  # (steps, crystals, atoms, 3)
    torch.testing.assert_close(drawn.mean(2), torch.zeros(20, 30, 3).double(), rtol=0, atol=1e-9)
    assert float(drawn.square().mean()) == pytest.approx(7 / 8, abs=0.03)
    rows = drawn.flatten(2).flatten(0, 1)
    alike = torch.corrcoef(rows).abs() - torch.eye(600)
    assert alike.max() < 0.9


def test_ids_follow_the_number(model: CDVAE) -> None:
    assert ids_of(generate(model, 3, seed=0, first=41, steps=1)) == ["0-41", "0-42", "0-43"]


def test_fixed_number_of_atoms(model: CDVAE) -> None:
    for num_atoms in (1, 8):
        result = generate(model, 5, num_atoms=num_atoms, steps=2)
        assert {crystal.num_atoms for crystal in result.crystals} == {num_atoms}


@pytest.mark.parametrize(
    ("formula", "num_atoms", "expected"),
    [
        ("SrTiO3", None, {"Sr": 1, "Ti": 1, "O": 3}),
        ("NaCl", 8, {"Na": 4, "Cl": 4}),
        ("Ca(OH)2", None, {"Ca": 1, "O": 2, "H": 2}),
        ("H2OH2O", None, {"H": 4, "O": 2}),
        ("C", 6, {"C": 6}),
    ],
)
def test_fixed_formula(model: CDVAE, formula: str, num_atoms: int | None, expected: dict[str, int]) -> None:
    """Every crystal has these atoms, whatever the network says."""
    result = generate(model, 5, formula=formula, num_atoms=num_atoms, steps=3)
    assert len(result.crystals) + len(result.failures) == 5
    assert result.crystals
    for crystal in result.crystals:
        assert crystal.composition == dict(sorted(expected.items(), key=lambda item: ATOMIC_NUMBERS[item[0]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formula": "Sr3Ti3O9"}, r"formula Sr3Ti3O9 has 15 atoms.* 1 to 8 \(model.max_atoms\)"),
        ({"formula": "C1000"}, r"1000 atoms"),
        ({"formula": "(((C1000)1000)1000)1000"}, r"\(\(\(C1000\)1000\)1000\)1000"),
        ({"formula": "C" + "9" * 5000}, r"more than 10000 atoms"),
        ({"formula": "H9999" * 4000}, r"^the formula 'H9999.{25,30}' has more than 10000 atoms"),
        ({"formula": "Sr2", "num_atoms": 3}, r"--num-atoms 3 is no multiple of the 2 atoms of Sr2"),
        ({"formula": "Sr2", "num_atoms": 0}, r"--num-atoms 0"),
        ({"formula": "Sr2", "num_atoms": -2}, r"--num-atoms -2"),
        ({"num_atoms": 9}, r"--num-atoms 9: this model holds 1 to 8"),
        ({"num_atoms": 0}, r"--num-atoms 0"),
        ({"formula": "SrTu"}, r"unknown element 'Tu': did you mean"),
        ({"formula": "SrTiO3Xx"}, r"unknown element 'Xx'"),
        ({"formula": "Md"}, r"element Md in 'Md': models know the elements 1 to 100"),
        ({"formula": "srtio3"}, r"cannot read the formula 'srtio3'"),
        ({"formula": "Sr Ti"}, r"cannot read the formula"),
        ({"formula": ""}, r"cannot read the formula ''"),
        ({"formula": "()"}, r"cannot read the formula '\(\)'"),
        ({"formula": "()2"}, r"cannot read the formula"),
        ({"formula": "O0"}, r"cannot read the formula 'O0' at '0'"),
        ({"formula": "2O"}, r"cannot read the formula '2O' at '2'"),
        ({"formula": "Ca(OH"}, r"a parenthesis is not closed"),
        ({"formula": "CaOH)2"}, r"cannot read the formula 'CaOH\)2' at '\)'"),
        ({"formula": "Sr0.5Ti"}, r"cannot read the formula"),
        ({"formula": "Fe2+"}, r"cannot read the formula"),
        ({"steps": 0}, r"--steps must lie in 1..20"),
        ({"steps": 21}, r"--steps must lie in 1..20"),
        ({"steps": -1}, r"--steps must lie in 1..20"),
        ({"batch_size": -1}, "batch_size must be 1 or more"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wishes_that_cannot_be_met(model: CDVAE, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        generate(model, 2, **options)
    assert "\n" not in str(error.value)


def test_formulas_are_read() -> None:
    assert parse_formula("SrTiO3") == atoms("Sr", "Ti", "O", "O", "O")
    assert parse_formula("Ca(OH)2") == atoms("Ca", "O", "H", "O", "H")
    assert Counter(parse_formula("Al2(SO4)3")) == Counter(atoms(*["Al"] * 2, *["S"] * 3, *["O"] * 12))
    assert Counter(parse_formula("K4(Fe(CN)6)")) == Counter(atoms(*["K"] * 4, "Fe", *["C", "N"] * 6))
    assert parse_formula("Co") == atoms("Co")
    assert parse_formula("CO") == atoms("C", "O")
    assert parse_formula("(C)12") == atoms("C") * 12


@pytest.mark.parametrize("formula", ["SrTiO3", "Ca(OH)2", "Al2(SO4)3", "K4(Fe(CN)6)", "C60", "Mg(Fe(CN)3)2"])
def test_formulas_mean_what_pymatgen_reads(formula: str) -> None:
    from pymatgen.core import Composition

    expected = {element.Z: int(count) for element, count in Composition(formula).items()}
    assert Counter(parse_formula(formula)) == expected


def test_latents_go_with_the_condition(model: CDVAE) -> None:
    """Latents chosen for a formula are likelier to decode to it than plain ones; all are still normal draws."""
    random = CrystalRandom(0, torch.arange(200))
    for head in (model.stats.num_atoms, model.stats.composition):
        head[-1].weight.mul_(4)  # an untrained decoder has next to no opinion
    for num_atoms, formula in ((3, None), (None, "SrTiO3")):
        condition = ConditionalLatents(AtomConditions.of({"num_atoms": num_atoms, "formula": formula}, 8))
        fixed = condition.of_batch(range(200), model.device)
        types = torch.tensor(parse_formula(formula) if formula else [], dtype=torch.long)

        def likelihood(z: Tensor, types: Tensor = types) -> Tensor:
            decoded = model.stats(z)
            value = decoded.num_atoms.log_softmax(-1)[:, len(types) or 3]
            return value + decoded.composition.log_softmax(-1)[:, types - 1].sum(-1)

        chosen = condition.latents(model.stats, random, NormalPrior(6, {}), 6, fixed)
        plain = ConditionalLatents(AtomConditions()).latents(model.stats, random, NormalPrior(6, {}), 6)
        assert chosen.shape == plain.shape == (200, 6)
        assert float(likelihood(chosen).mean()) > float(likelihood(plain).mean()) + 0.1
        assert chosen.abs().max() < 6
        assert len(chosen.unique(dim=0)) == 200


def test_latents_follow_bayes() -> None:
    """With one latent dimension and a decoder that says yes to z > 0 with odds 9 : 1, so do the latents."""
    model = tiny_model(torch.float64)

    class Odds(KnownStatistics):
        def forward(self, z: Tensor) -> Any:
            yes = (z[..., 0] > 0).to(z.dtype)
            logits = torch.stack([(1 + 8 * (1 - yes)).log(), (1 + 8 * yes).log()], -1)
            return super().forward(z)._replace(num_atoms=logits)

    stats = Odds(model, batch_of([random_crystal(0)]))
    z = ConditionalLatents(AtomConditions(sizes=(1,))).latents(
        stats, CrystalRandom(0, torch.arange(3000)), NormalPrior(1, {}), 1
    )
    assert float((z > 0).double().mean()) == pytest.approx(0.9, abs=0.02)
    assert float(z[z > 0].square().mean()) == pytest.approx(1, abs=0.1)


def test_the_network_decides_types_where_they_are_free(model: CDVAE) -> None:
    """Z <- argmax of the logits after each step; the last one stands."""

    def carbon(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.zeros(len(noisy.frac_coords), 100)
        logits[:, 5] = 1
        return torch.zeros_like(noisy.frac_coords), logits

    replace_denoise(model, carbon)
    for crystal in generate(model, 3, steps=2).crystals:
        assert set(crystal.atomic_numbers) == {6}


def test_all_steps_are_the_default_and_time_falls(model: CDVAE) -> None:
    shown = record(model)
    generate(model, 2)
    assert [step[0]["time"] for step in shown] == list(range(20, 0, -1))
    shown.clear()
    generate(model, 2, steps=4)
    assert [step[0]["time"] for step in shown] == [20, 15, 10, 5]


def test_sampling_leaves_the_model_as_it_was(model: CDVAE) -> None:
    for mode in (True, False):
        model.train(mode)
        generate(model, 1, steps=1)
        assert model.training is mode

    def broken(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        raise KeyboardInterrupt

    model.train()
    replace_denoise(model, broken)
    with pytest.raises(KeyboardInterrupt):
        generate(model, 1, steps=1)
    assert model.training


# failures stay alone


def spoil(model: CDVAE, crystal: int, value: float) -> None:
    """The network says ``value`` about every atom of one crystal of the batch."""
    denoise = model.denoise

    def answer(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        prediction, logits = denoise(noisy, z, time)
        wrong = (noisy.crystal_index == crystal)[:, None]
        return prediction.masked_fill(wrong, value), logits.masked_fill(wrong, value)

    replace_denoise(model, answer)


@pytest.mark.parametrize("rule", ["ancestral", "x0-jump"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -3e38])
def test_a_crystal_that_is_not_finite_fails_alone(rule: str, value: float) -> None:
    good, bad = (tiny_model(torch.float32, reverse_rule=rule) for _ in range(2))
    spoil(bad, 2, value)
    expected = {c.id: c for c in generate(good, 5, steps=6).crystals}
    result = generate(bad, 5, steps=6)
    assert ids_of(result) == [f"0-{k}" for k in range(5)]
    assert {f.id for f in result.failures} >= {"0-2"}
    assert {f.id: f.reason for f in result.failures}["0-2"] == "coordinates are not finite"
    del expected["0-2"]
    assert {c.id for c in result.crystals} == set(expected)
    for crystal in result.crystals:
        np.testing.assert_allclose(crystal.lattice, expected[crystal.id].lattice)
        assert np.array_equal(crystal.atomic_numbers, expected[crystal.id].atomic_numbers)


def test_a_crystal_without_a_cell_fails_alone() -> None:
    model = tiny_model(torch.float64)
    truth = batch_of([random_crystal(k, 2) for k in range(4)])
    flat, gone = truth.lattice.clone(), torch.full((3, 3), float("nan")).double()
    flat[1], flat[2] = 1e-3 * torch.eye(3).double(), gone

    class Cells(KnownStatistics):
        def forward(self, z: Tensor) -> Any:
            return super().forward(z)._replace(lattice=self.scaler(flat, truth.num_atoms))

    model.stats = Cells(model, truth)
    result = generate(model, 4, steps=3)
    assert sorted(f.id for f in result.failures) == ["0-1", "0-2"]
    assert {f.reason for f in result.failures} == {"the decoded lattice is no cell"}
    assert [c.id for c in result.crystals] == ["0-0", "0-3"]
    for crystal, expected in zip(result.crystals, truth.lattice[[0, 3]], strict=True):
        metric = torch.tensor(crystal.lattice @ crystal.lattice.T)
        torch.testing.assert_close(metric, expected @ expected.T)


def test_nan_latents_fail_alone(model: CDVAE) -> None:
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    z[1] = float("nan")
    batch, usable = decode(model, z, CrystalRandom(0, torch.arange(3)), 4)
    assert usable.tolist() == [True, False, True]
    sizes = batch.num_atoms.tolist()
    for k in (0, 2):
        assert batch.frac_coords.split(sizes)[k].isfinite().all()


# reconstruction


CRYSTALS = [random_crystal(k, n) for k, n in enumerate((5, 1, 3, 8))]


def test_reconstruction_keeps_ids_and_order(model: CDVAE) -> None:
    table = table_of(CRYSTALS, bonded=True)
    for size in (256, 3):
        result = reconstruct(model, table, steps=2, batch_size=size)
        assert ids_of(result) == [f"random-{k}" for k in range(4)]
        order = [crystal.id for crystal in result.crystals]
        assert order == sorted(order)


def test_forced_numbers_of_atoms_stay_those_of_the_crystal(model: CDVAE) -> None:
    result = reconstruct(model, table_of(CRYSTALS, bonded=True), steps=2, force_num_atoms=True)
    sizes = {crystal.id: crystal.num_atoms for crystal in CRYSTALS}
    assert {c.id: c.num_atoms for c in result.crystals} == {c.id: sizes[c.id] for c in result.crystals}
    assert result.crystals


@pytest.mark.parametrize("batch_size", [256, 3])
def test_forced_types_stay_those_of_the_crystal(model: CDVAE, batch_size: int) -> None:
    """Of every atom in its place, whatever the network says."""
    result = reconstruct(model, table_of(CRYSTALS, bonded=True), steps=2, force_types=True, batch_size=batch_size)
    truth = {crystal.id: crystal for crystal in CRYSTALS}
    assert result.crystals
    for crystal in result.crystals:
        assert crystal.atomic_numbers.tolist() == truth[crystal.id].atomic_numbers.tolist()


def test_reconstruction_starts_from_the_mean_unless_asked(model: CDVAE) -> None:
    table = table_of(CRYSTALS, bonded=True)
    mu, log_var = model.encode(batch_of(CRYSTALS, torch.float32, bonded=True))
    shown = record(model)
    reconstruct(model, table, steps=1)
    torch.testing.assert_close(torch.stack([crystal["z"] for crystal in shown[0]]), mu)
    shown.clear()
    reconstruct(model, table, steps=1, sample_latent=True)
    noise = CrystalRandom(0, torch.arange(4)).normal("latent", 6).float()
    drawn = torch.stack([crystal["z"] for crystal in shown[0]])
    torch.testing.assert_close(drawn, mu + torch.exp(0.5 * log_var) * noise)


def test_reconstruction_noise_does_not_depend_on_the_batch(model: CDVAE) -> None:
    shown = record(model)
    table = table_of(CRYSTALS, bonded=True)
    reconstruct(model, table, steps=3, force_types=True)
    together = [[step[k] for step in shown] for k in range(4)]
    shown.clear()
    reconstruct(model, table, steps=3, force_types=True, batch_size=1)
    for k in range(4):
        for step in range(3):
            ours, theirs = together[k][step], shown[3 * k + step][0]
            assert_shown_the_same({key: ours[key] for key in ("coords", "types", "time")}, theirs)


def test_what_cannot_be_reconstructed(model: CDVAE) -> None:
    with pytest.raises(InputError, match="carry no bonds"):
        reconstruct(model, table_of(CRYSTALS))
    with pytest.raises(InputError, match="empty"):
        reconstruct(model, table_of([]))
    large = table_of([*CRYSTALS, random_crystal(9, 9, 5.0)], bonded=True)
    for forced in ({"force_num_atoms": True}, {"force_types": True}):
        with pytest.raises(InputError, match=r"9 atoms.* at most 8"):
            reconstruct(model, large, steps=1, **forced)
    assert len(ids_of(reconstruct(model, large, steps=1))) == 5
    with pytest.raises(InputError, match="--steps"):
        reconstruct(model, large, steps=21)


def test_perfect_components_reconstruct_perfectly() -> None:
    """True statistics and the true noise: the crystals come back through the whole of reconstruct."""
    from test_diffusion import TRUTH, Oracle

    model, truth = tiny_model(torch.float64), batch_of(TRUTH)
    model.stats = KnownStatistics(model, truth)
    model.denoiser = Oracle(model, truth)
    result = reconstruct(model, table_of(TRUTH, bonded=True), steps=5)
    assert not result.failures
    for crystal, expected in zip(result.crystals, TRUTH, strict=True):
        assert_same_up_to_origin(crystal, expected)


def assert_same_up_to_origin(ours: Crystal, theirs: Crystal) -> None:
    assert ours.id == theirs.id
    assert ours.atomic_numbers.tolist() == theirs.atomic_numbers.tolist()
    np.testing.assert_allclose(ours.lattice, theirs.lattice, atol=1e-9)
    moved = ours.frac_coords - ours.frac_coords[0] - theirs.frac_coords + theirs.frac_coords[0]
    np.testing.assert_allclose(moved - np.round(moved), 0, atol=1e-9)
