"""Energies, forces and stresses by name: machine-learned potentials, DFT codes, and any calculator of ASE.

A potential is loaded when it is asked for, and each is an optional dependency of its own: what is missing
is named with the extra that brings it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import io
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError, one_line, unknown_name
from dpcdvae.files import sha256
from dpcdvae.registry import Registry
from dpcdvae.relaxation import chgnet, dft
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import SYMBOLS

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

Elements = Collection[int]
Results = Mapping[str, Any]
"""``energy`` (eV of the cell), ``forces`` (n, 3) eV/Å and ``stress`` (6,) or (3, 3) eV/Å^3, as ASE's calculators."""
Evaluate = Callable[[Sequence["Atoms"]], Sequence[Results]]

DEFAULT = "chgnet"
NEEDED = ("energy", "forces", "stress")


@dataclass(frozen=True)
class Source:
    """One way to energies.

    Attributes:
        summary: what it is, in a line.
        build: options as keywords -> an ASE calculator.
        package: what has to be importable.
        elements: calculator -> atomic numbers it knows; None where only the calculation shows it.
        extra: the optional dependency that brings it; empty where pip alone cannot.
        writes_files: whether it works in a folder (then ``build`` takes ``directory``).
        together: (calculator, atoms of many crystals) -> results of each, as one computation; None where it
            takes one crystal at a time.
        version: options -> what distinguishes it from an older one; None where its package's version does.
    """

    summary: str
    build: Callable[..., Calculator]
    package: str
    elements: Callable[[Any], Elements] | None
    extra: str = ""
    writes_files: bool = False
    together: Callable[[Any, Sequence[Atoms]], list[dict[str, Any]]] | None = None
    version: Callable[[Mapping[str, Any]], str] | None = None


def _sevennet(*, model: str = "7net-0", device: str = "auto", modal: str | None = None) -> Calculator:
    from sevenn.calculator import SevenNetCalculator

    chosen = {} if modal is None else {"modal": modal}
    calculator: Calculator = SevenNetCalculator(model=model, device=device, **chosen)
    return calculator


def _by_matcalc(default: str, **options: Any) -> Calculator:
    """A potential by matcalc's name for it; its weights come from the network when they are first asked for."""
    try:
        from matcalc import PESCalculator
    except ModuleNotFoundError as error:
        raise InputError("the package matcalc is missing: pip install 'matcalc>=0.7'") from error
    calculator: Calculator = PESCalculator.load_universal(options.pop("model", default), **options)
    return calculator


def _versions(*distributions: str) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in distributions)


CALCULATORS: Registry[Source] = Registry(
    "calculator",
    {
        "chgnet": Source(
            "CHGNet 0.3.0 (Deng et al. 2023), weights in its package",
            build=chgnet.chgnet,
            package="chgnet",
            extra="relaxation",
            elements=lambda _: chgnet.ELEMENTS,
            together=chgnet.evaluate,
        ),
        "sevennet": Source(
            "SevenNet-0 (Park et al. 2024), weights in its package",
            build=_sevennet,
            package="sevenn",
            extra="sevennet",
            elements=lambda calculator: frozenset(map(int, calculator.type_map)),
        ),
        "mace": Source(
            "MACE-MPA-0 (Batatia et al. 2024), through matcalc",
            build=functools.partial(_by_matcalc, "MACE-MPA-0-medium"),
            package="mace",
            extra="mace",
            elements=lambda calculator: frozenset(map(int, calculator.z_table.zs)),
            version=lambda options: _versions("mace-torch", "matcalc"),
        ),
        "mattersim": Source(
            "MatterSim 1.0, 1 M parameters (Yang et al. 2024), through matcalc",
            build=functools.partial(_by_matcalc, "MatterSim-v1.0.0-1M"),
            package="mattersim",
            extra="mattersim",
            elements=None,
            version=lambda options: _versions("mattersim", "matcalc"),
        ),
        "orb": Source(
            "ORB 3, conservative, of Materials Project and Alexandria (Rhodes et al. 2025), through matcalc",
            build=functools.partial(_by_matcalc, "ORB-MPtrj-Alex-v3-conservative-inf"),
            package="orb_models",
            extra="orb",
            elements=None,
            version=lambda options: _versions("orb-models", "matcalc"),
        ),
        "gpaw": Source(
            "GPAW, DFT in plane waves with its PAW data sets",
            build=dft.gpaw,
            package="gpaw",
            elements=dft.gpaw_elements,
            writes_files=True,
        ),
        "espresso": Source(
            "Quantum ESPRESSO, DFT with PAW files of your own",
            build=dft.espresso,
            package="ase",
            elements=dft.espresso_elements,
            writes_files=True,
            version=lambda options: dft.program_version(options.get("command", "pw.x")),
        ),
        "vasp": Source(
            "VASP, DFT, for who has a licence",
            build=dft.vasp,
            package="ase",
            elements=dft.vasp_elements,
            writes_files=True,
            version=lambda options: dft.program_version(dft.vasp_command(options.get("command"))),
        ),
    },
)


def build_calculator(name: str = DEFAULT, options: Mapping[str, Any] | None = None) -> Calculator:
    """An ASE calculator by name.

    Args:
        name: an entry of ``CALCULATORS``, or ``module:Class`` for any other calculator of ASE's kind.
        options: keywords of its constructor, e.g. ``{"use_device": "cpu"}`` for CHGNet.

    Raises:
        InputError: an unknown name, a package that is missing (with the extra that brings it), a module
            without that class, an option it does not have or take, a calculator without forces or stress.
    """
    options = dict(options or {})
    if ":" in name:
        calculator = _quietly(name, _external(name), options)
    else:
        source = source_of(name)
        _check_package(name, source)
        calculator = _quietly(name, source.build, options)
    offered = getattr(calculator, "implemented_properties", ())
    if missing := [quantity for quantity in NEEDED if quantity not in offered]:
        raise InputError(f"calculator {name} gives no {' and no '.join(missing)}: it cannot relax a crystal")
    return calculator


def batch_evaluator(name: str, calculator: Calculator) -> Evaluate:
    """What computes many crystals at once.

    Args:
        calculator: as :func:`build_calculator` gives. One of ``module:Class`` can where it has a method
            ``calculate_batch`` of that kind.

    Raises:
        InputError: it takes one crystal at a time.
    """
    evaluate: Evaluate | None
    if ":" in name:
        evaluate = getattr(calculator, "calculate_batch", None)
    else:
        together = CALCULATORS[name].together
        evaluate = None if together is None else functools.partial(together, calculator)
    if evaluate is None:
        able = ", ".join(key for key, source in CALCULATORS.items() if source.together is not None)
        raise InputError(f"calculator {name} takes one crystal at a time: leave out --batch, or choose from {able}")
    return evaluate


def known_elements(name: str, calculator: Calculator) -> Elements | None:
    """Atomic numbers a calculator is made for; None where only the calculation shows it, as of ``module:Class``."""
    elements = None if ":" in name else CALCULATORS[name].elements
    return None if elements is None else elements(calculator)


def unknown_elements(name: str, calculator: Calculator, crystal: Crystal) -> str | None:
    """The reason why a calculator cannot take a crystal: elements that it does not know. None where it knows all."""
    known = known_elements(name, calculator)
    strange = [] if known is None else sorted(set(crystal.atomic_numbers.tolist()) - set(known))
    return f"{name} does not know {', '.join(SYMBOLS[z] for z in strange)}" if strange else None


def calculator_version(name: str, options: Mapping[str, Any] | None = None) -> str:
    """Version of the package behind a calculator, or the hash of its program; empty where neither is known."""
    if name in CALCULATORS and (version := CALCULATORS[name].version) is not None:
        return version(options or {})
    package = name.partition(":")[0].partition(".")[0] if ":" in name else CALCULATORS[name].package
    return str(getattr(importlib.import_module(package), "__version__", ""))


def option_files(options: Mapping[str, Any]) -> dict[str, str]:
    """Option -> sha256 of the file that its value names, such as one of weights: the name alone says little."""
    return {name: sha256(value) for name, value in options.items() if isinstance(value, str) and os.path.isfile(value)}


def source_of(name: str) -> Source:
    """The entry of ``CALCULATORS``; raises InputError, with the nearest name, where there is none."""
    if name not in CALCULATORS:
        raise InputError(f"{unknown_name('calculator', name, CALCULATORS)}, or name any of ASE's as module:Class")
    return CALCULATORS[name]


def _check_package(name: str, source: Source) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(source.package)
    except ModuleNotFoundError as error:
        if error.name != source.package:
            raise InputError(f"calculator {name}: package {source.package} is broken: {error}") from None
        how = f"pip install 'dpcdvae[{source.extra}]'" if source.extra else f"see docs/relaxation.md on {name}"
        raise InputError(f"calculator {name} needs the package {source.package}: {how}") from None


def _external(name: str) -> Callable[..., Calculator]:
    """The class or function that ``module:Class`` names."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError(f"calculator '{name}': give module:Class, such as ase.calculators.emt:EMT")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"calculator {name}: cannot import {module_name}: {error}") from None
    found: Callable[..., Calculator] | None = getattr(module, attribute, None)
    if not callable(found):
        choices = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"calculator {name}: {unknown_name(f'class of {module_name}', attribute, choices)}")
    return found


def _quietly(name: str, build: Callable[..., Calculator], options: Mapping[str, Any]) -> Calculator:
    """Builds without the constructor's chatter, and turns whatever it says against the options into one line."""
    check_options(name, build, options)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build(**options)
    except InputError:
        raise
    except Exception as error:  # other people's constructors: all that they raise is about what they were given
        text = one_line(error)[:300]
        raise InputError(
            f"calculator {name} cannot be built with {dict(options)}: {type(error).__name__}: {text}"
        ) from error


def check_options(name: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """ASE's calculators ignore keywords that they do not have: here these are an InputError."""
    parameters = inspect.signature(build).parameters.values()
    defaults = getattr(build, "default_parameters", {})
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters) and not defaults:
        return  # it does not say what it takes
    known = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD} | {*defaults}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of calculator {name}", option, known)
