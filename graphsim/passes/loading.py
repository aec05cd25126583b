"""A user's own pass by its name, `module:name`, as a command line gives it."""

from __future__ import annotations

from importlib import import_module

from graphsim.errors import ConfigError, choices_text
from graphsim.graph import Pass
from graphsim.units import short


def load_pass(ref: str) -> Pass:
    """The pass called `name` in an importable module: an instance, or a class without required arguments.

    ref: `module:name`, with dots for modules inside packages
    Raises ConfigError for a module or a name that is not there, and for an object that is not a pass.
    """
    module_name, separator, name = ref.partition(":") if isinstance(ref, str) else ("", "", "")
    if not separator or not module_name or not name:
        raise ConfigError(f"pass = {short(ref)} is not allowed; expected module:name, such as my_passes:FuseNorm")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"pass = '{ref}': module '{module_name}' cannot be imported: {error}") from None
    except (Exception, SystemExit) as error:  # anything that a user's module raises during import
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"pass = '{ref}': module '{module_name}' cannot be imported: {said}") from None
    found = getattr(module, name, None)
    if found is None:
        passes = [key for key, value in vars(module).items() if _is_pass(value)]
        raise ConfigError(f"pass = '{ref}': '{module_name}' has no '{name}'; {choices_text(name, passes)}")
    if not _is_pass(found):
        raise ConfigError(f"pass = '{ref}' is {short(found)}; expected a subclass of graphsim.Pass, or an instance")
    if isinstance(found, Pass):
        return found
    try:
        made: Pass = found()
    except TypeError as error:
        raise ConfigError(f"pass = '{ref}' cannot be made without arguments: {error}; name an instance") from None
    return made


def _is_pass(value: object) -> bool:
    return isinstance(value, Pass) or (isinstance(value, type) and issubclass(value, Pass) and value is not Pass)
