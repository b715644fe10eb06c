"""A function as an operator of torch: `torch.compile`, `torch.export` and autograd take it as a whole.

It is `torch.library.custom_op` for operators that change none of their arguments, without one thing: that imports
torch's compiler, for seconds, when an operator is first called, though nothing is compiled (torch 2.13).
"""

from collections.abc import Callable
from typing import Any

import torch


class Operator:
    """What `operator` makes of a function; called, it goes through torch's dispatcher."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self.__doc__ = name, function.__doc__
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, "default", function)
        namespace, _, own = name.partition("::")
        self.overload = getattr(getattr(torch.ops, namespace), own).default

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.overload(*args, **options)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Take what the function returns for shapes and types of the results."""
        torch.library.register_fake(self.name, function)
        return function

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., None]) -> None:
        """Give it its derivative, as `torch.library.register_autograd` takes it."""
        torch.library.register_autograd(self.name, backward, setup_context=setup_context)

    def register_vmap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Tell `torch.vmap` what it does to a stack of arguments, as `torch.library.register_vmap` takes it."""
        torch.library.register_vmap(self.name, function)
        return function


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Make an operator called `name`, as `namespace::name`, of the typed function below; it may change no argument."""
    return lambda function: Operator(name, function)
