"""The options of every component: encoders, denoisers, diffusions and priors. The defaults are the published values.

The components themselves need torch, their options do not. So a configuration is checked, and shown, without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, model_validator

from dpcdvae.config.fields import AUTHORS_CODE, Section, option
from dpcdvae.registry import Registry

MAX_WIDTH = 4096  # of a layer
MAX_LAYERS = 32
MAX_TIMESTEPS = 10_000
MAX_STEPS_PER_LEVEL = 1000
MAX_FOURIER = 32  # exponent of 2, beyond which float32 has no digits left

SOLVER_ALIASES = {"eq7": "x0-jump", "eq6": "ancestral", "jump": "x0-jump", "pf-ode": "ddim"}


DDPMSolverName = Literal["x0-jump", "ancestral", "ddim", "dpm++2m", "heun"]
WrappedSolverName = Literal["x0-jump", "ancestral", "ddim"]


def canonical_solver(name: Any) -> Any:
    """The name of a solver; aliases are the equations of the paper, and names in older checkpoints."""
    return SOLVER_ALIASES.get(name, name) if isinstance(name, str) else name


def _width(default: int, meaning: str, *, ge: int = 1) -> Any:
    return option(default, meaning, ge=ge, le=MAX_WIDTH)


def _layers(default: int, meaning: str, *, ge: int = 0) -> Any:
    return option(default, meaning, ge=ge, le=MAX_LAYERS)


def _cutoff(meaning: str) -> Any:
    return option(7.0, meaning, "Å", gt=0, le=50)


class DimeNetOptions(Section):
    """DimeNet++ encoder."""

    hidden: int = _width(128, "width of the messages on bonds")
    blocks: int = _layers(4, "interaction blocks")
    int_emb: int = _width(64, "width of the messages in the sum over triplets")
    basis_emb: int = _width(8, "width of the radial and angular bases after their projection")
    out_emb: int = _width(256, "width of the output blocks")
    num_spherical: int = option(7, "spherical basis functions of the angles", ge=1, le=16)
    num_radial: int = option(6, "radial basis functions", ge=1, le=1024)
    cutoff: float = _cutoff("distance at which the radial basis vanishes")
    envelope_exponent: int = option(5, "exponent of the cutoff, counted as in the public code: p - 1", ge=1, le=32)
    layers_before_skip: int = _layers(1, "residual layers of a block before the skip connection")
    layers_after_skip: int = _layers(2, "residual layers of a block after the skip connection")
    output_layers: int = _layers(3, "layers of the output blocks")
    same_atom_triplets: bool = option(
        True, "triplets that return to the same atom in another cell; false: none of them", group=AUTHORS_CODE
    )


class GINEOptions(Section):
    """GINE encoder."""

    hidden: int = _width(256, "width of the atom and bond features")
    convolutions: int = _layers(3, "convolutions", ge=1)


class LatticeOptions(Section):
    """Encoder of the cell parameters."""

    hidden: int = _width(128, "width of the perceptron")
    layers: int = _layers(2, "hidden layers of the perceptron")


class CompositionOptions(Section):
    """Encoder of the composition."""

    features: int = _width(0, "width of the features; 0: as wide as the latent", ge=0)


class NumAtomsOptions(Section):
    """Encoder of the number of atoms."""

    features: int = _width(0, "width of the embedding; 0: as wide as the latent", ge=0)


class GemNetOptions(Section):
    """GemNet-T denoiser."""

    hidden: int = _width(128, "width of the messages on edges and of the type embedding")
    atom_width: int = _width(0, "width of the atom features; 0: that of all inputs side by side", ge=0)
    blocks: int = _layers(3, "interaction blocks")
    num_radial: int = option(128, "radial basis functions", ge=1, le=1024)
    num_spherical: int = option(7, "Legendre polynomials of the angles", ge=1, le=16)
    emb_trip: int = _width(64, "width of the messages in the sum over triplets")
    emb_rbf: int = _width(16, "width of the radial basis after its projection")
    emb_cbf: int = _width(16, "width of the circular basis after its projection")
    bil_trip: int = _width(64, "width after the bilinear layer of the triplets")
    layers_before_skip: int = _layers(1, "residual layers of a block before the skip connection")
    layers_after_skip: int = _layers(2, "residual layers of a block after the skip connection")
    layers_concat: int = _layers(1, "residual layers after atoms and edges are concatenated")
    layers_atom: int = _layers(3, "residual layers of the atom updates and of the output blocks")
    cutoff: float = _cutoff("radius of the neighbour search")
    max_neighbours: int = option(20, "edges of an atom at most, the shortest first", ge=1, le=200)
    complete_search: bool = option(
        True, "all images within the cutoff; false: among 27 cells, cut in the order found", group=AUTHORS_CODE
    )
    envelope_exponent: int = option(5, "exponent p of the cutoff polynomial", ge=1, le=32)
    feature_layers: int = _layers(1, "hidden layers between the inputs and the network; CDVAE has none")
    time_embedding: int = _width(128, "width of the time embedding, even; 0: the network does not see the time", ge=0)
    fourier: list[int] = option(
        [3, 8], "first and last n of the Fourier features sin, cos(2π 2^n x) of the coordinates; []: none"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        first, last = self.fourier if len(self.fourier) == 2 else (0, -1)
        if self.fourier and not 0 <= first <= last <= MAX_FOURIER:
            raise ValueError(
                f"option fourier must be [] or [first, last] with 0 <= first <= last <= {MAX_FOURIER}, "
                f"not {self.fourier[:5]}"
            )
        if self.time_embedding % 2:
            raise ValueError(f"option time_embedding must be even, not {self.time_embedding}")
        return self


class DiffusionOptions(Section):
    """Base of the options of a diffusion: its solvers and the length of its reverse process.

    Attributes:
        solvers: names of its solvers; a test compares them with the classes, which need torch.
    """

    solvers: ClassVar[tuple[str, ...]]

    @property
    def solver(self) -> str:
        """The solver where none is asked for."""
        return str(getattr(self, "reverse_rule", self.solvers[0]))

    def max_steps(self, timesteps: int) -> int:
        """Steps of the longest reverse process over so many noise levels."""
        return timesteps * int(getattr(self, "steps_per_level", 1))


class DDPMOptions(DiffusionOptions):
    """Denoising diffusion of fractional coordinates."""

    solvers = get_args(DDPMSolverName)
    schedule: Literal["sigmoid", "linear", "quadratic", "cosine"] = option("sigmoid", "noise schedule β_t")
    beta_start: float = option(1e-10, "β at the first level; not of cosine", gt=0, le=1)
    beta_end: float = option(0.01, "β at the last level; not of cosine", gt=0, le=2)
    reverse_rule: Annotated[DDPMSolverName, BeforeValidator(canonical_solver)] = option(
        "x0-jump", "solver where no --solver is given"
    )
    mean_free: bool = option(True, "remove each crystal's mean from the noise")
    recentre: bool = option(True, "put the centre of the clean coordinates at the origin")
    turn_frame: bool = option(
        True,
        "turn the Cartesian output into fractional vectors; false: take its numbers as fractional",
        group=AUTHORS_CODE,
    )
    time_input: Literal["step", "fraction"] = option(
        "step", "the denoiser is given t, or the fraction t/T", group=AUTHORS_CODE
    )


class ScoreMatchingOptions(DiffusionOptions):
    """Score matching in Å with annealed Langevin dynamics, CDVAE's."""

    solvers = ("langevin",)
    sigma_min: float = option(0.01, "σ of the smallest noise level", "Å", gt=0, le=100)
    sigma_max: float = option(10.0, "σ of the largest noise level", "Å", gt=0, le=100)
    steps_per_level: int = option(100, "Langevin steps at each level", ge=1, le=MAX_STEPS_PER_LEVEL)
    step_size: float = option(1e-4, "ε of the step α = ε (σ/σ_min)²", "Å²", gt=0, le=100)
    last_noise: bool = option(True, "noise in the last step; false: it goes to the mean x + σ² score")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"option sigma_min = {self.sigma_min:g} must be below sigma_max = {self.sigma_max:g} (Å)")
        if self.step_size >= 2 * self.sigma_min**2:
            raise ValueError(
                f"option step_size = {self.step_size:g} must be below 2 sigma_min² = {2 * self.sigma_min**2:g} (Å²): "
                "longer steps lead away from an atom's place"
            )
        return self


class WrappedNormalOptions(DiffusionOptions):
    """Diffusion on the torus, by the score of the wrapped normal."""

    solvers = get_args(WrappedSolverName)
    sigma_min: float = option(0.005, "σ of the smallest noise level", "cell lengths", gt=0, le=1)
    sigma_max: float = option(0.5, "σ of the largest level, where the cell is filled", "cell lengths", gt=0, le=1)
    reverse_rule: Annotated[WrappedSolverName, BeforeValidator(canonical_solver)] = option(
        "x0-jump", "solver where no --solver is given"
    )
    mean_free: bool = option(True, "remove each crystal's mean from target and prediction")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"option sigma_min = {self.sigma_min:g} must be below sigma_max = {self.sigma_max:g}")
        return self


class NoOptions(Section):
    """No options."""


class FlowOptions(Section):
    """A flow fitted to the latents of the training set."""

    width: int = _width(256, "width of the network")
    layers: int = _layers(4, "residual layers of the network", ge=1)
    steps: int = option(2000, "training steps", ge=1, le=1_000_000)
    batch: int = option(512, "latents of a training step", ge=1, le=65_536)
    lr: float = option(1e-3, "learning rate, which falls to 0 by a cosine", gt=0, le=1)
    passes: int = option(32, "midpoint steps from noise to latent", ge=1, le=1000)


class MixtureOptions(Section):
    """Several normal distributions fitted to the latents of the training set."""

    components: int = option(64, "normal distributions", ge=1, le=4096)
    steps: int = option(50, "steps of expectation-maximisation at most", ge=1, le=10_000)


class LocalOptions(Section):
    """Latents of the training set with a little noise."""

    points: int = option(1000, "training crystals that are kept", ge=1, le=100_000)
    spread: float = option(0.6, "standard deviation of the noise", gt=0, le=100)


ENCODER_OPTIONS: Registry[type[Section]] = Registry(
    "encoder",
    {
        "composition": CompositionOptions,
        "dimenet++": DimeNetOptions,
        "gine": GINEOptions,
        "lattice": LatticeOptions,
        "num_atoms": NumAtomsOptions,
    },
)
DENOISER_OPTIONS: Registry[type[Section]] = Registry("denoiser", {"gemnet-t": GemNetOptions})
DIFFUSION_OPTIONS: Registry[type[DiffusionOptions]] = Registry(
    "diffusion",
    {"ddpm": DDPMOptions, "score-matching": ScoreMatchingOptions, "wrapped-normal": WrappedNormalOptions},
)
PRIOR_OPTIONS: Registry[type[Section]] = Registry(
    "prior",
    {
        "normal": NoOptions,
        "gaussian": NoOptions,
        "flow": FlowOptions,
        "mixture": MixtureOptions,
        "local": LocalOptions,
    },
)
COMPONENTS: dict[str, Mapping[str, type[Section]]] = {
    "encoder": ENCODER_OPTIONS,
    "denoiser": DENOISER_OPTIONS,
    "diffusion": DIFFUSION_OPTIONS,
    "prior": PRIOR_OPTIONS,
}
