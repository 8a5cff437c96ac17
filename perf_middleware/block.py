"""`profile("name")`: any piece of code, as `with`, `async with` or decorator."""

from __future__ import annotations

import functools
import inspect
from contextvars import copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from perf_middleware.collector.context import Capture, current
from perf_middleware.pipeline import default
from perf_middleware.record import Profile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextvars import Token
    from types import TracebackType

F = TypeVar("F", bound="Callable[..., Any]")


class profile:  # noqa: N801 - it reads as the verb it is
    """Profile a block of code.

        with profile("import") as p:
            ...
        print(p.query_count, p.db_ms, p.slowest(3), p.findings)

    Also `async with`, and a decorator of functions, coroutines, generators and async generators. Inside a request
    or another block it is a child of it (`parent_id`), and its queries count in the parent too. The profile is
    filled when the block ends, also when it ends with an exception.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f'profile("name") wants a non-empty text, got {type(name).__name__}')
        self.name = name
        self._open: _Open | None = None

    def __enter__(self) -> Profile:
        return self._enter(on_loop=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        block, self._open = self._open, None
        if block is not None:
            block.pause()
            if kind is GeneratorExit:
                block.abandon(error)
            else:
                block.finish(error)

    async def __aenter__(self) -> Profile:
        return self._enter(on_loop=True)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _enter(self, *, on_loop: bool) -> Profile:
        if self._open is not None:
            raise RuntimeError(f"profile({self.name!r}) is open already; write profile(...) anew for each block")
        self._open = _Open(self.name, on_loop=on_loop)
        self._open.resume()
        return self._open.profile

    def __call__(self, function: F) -> F:
        """Decorate a function; each call is a profile of its own."""
        if inspect.isasyncgenfunction(function):
            return _async_generator(function, self.name)  # type: ignore[return-value]
        name = self.name
        wrapper: Any
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
                return (yield from _drive(function(*args, **kwargs), name))

        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                async with profile(name):
                    return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with profile(name):
                    return function(*args, **kwargs)

        return wrapper  # type: ignore[no-any-return]


class _Open:
    """A block under way, which may be paused between the steps of a generator."""

    def __init__(self, name: str, *, on_loop: bool = False) -> None:
        self.pipeline = default()
        self.around = current.get()
        self.capture = None if self.pipeline is None else self.pipeline.begin("block", name=name)
        self.profile = (self.capture and self.capture.profile) or Profile(kind="block", name=name)
        if self.capture is not None and on_loop:
            self.capture.on_loop(get_ident())
        self._token: Token[Capture | None] | None = None

    def resume(self) -> None:
        if self.capture is not None:
            self._token = current.set(self.capture)

    def pause(self) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            current.reset(token)
        except ValueError:  # entered in one context and left in another, as async fixtures do
            if current.get() is self.capture:
                current.set(self.around)

    def finish(self, error: BaseException | None) -> None:
        if self.pipeline is not None and self.capture is not None:
            self.pipeline.finish(self.capture, error=error)

    def abandon(self, error: BaseException | None) -> None:
        """End it where the garbage collector may be calling."""
        if self.pipeline is not None and self.capture is not None:
            self.pipeline.abandon(self.capture, error=error)

    def step(self, function: Callable[..., Any], *args: Any) -> Any:
        """One step of a generator: only here is the profile current."""
        self.resume()
        try:
            return function(*args)
        finally:
            self.pause()

    async def async_step(self, function: Callable[..., Any], *args: Any) -> Any:
        """The same of an async generator, whose awaiting is in its task's own context."""
        self.resume()
        try:
            return await function(*args)
        finally:
            self.pause()


def _drive(generator: Any, name: str) -> Generator[Any, Any, Any]:
    """PEP 380's `yield from`, with the profile current only inside the generator."""
    block = _Open(name)
    step: tuple[Any, ...] = (generator.send, None)
    try:
        while True:
            try:
                item = block.step(*step)
            except StopIteration as stop:
                block.finish(None)
                return stop.value
            try:
                step = (generator.send, (yield item))
            except GeneratorExit:
                copy_context().run(block.step, generator.close)  # see `Pipeline.abandon`
                block.abandon(None)
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in by the consumer, for the generator to see
                step = (generator.throw, error)
    except GeneratorExit:
        raise
    except BaseException as error:
        block.finish(error)
        raise


def _async_generator(function: Callable[..., Any], name: str) -> Callable[..., AsyncGenerator[Any, Any]]:
    """The same for an async generator function; there is no `yield from` there to share the loop with."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        block = _Open(name, on_loop=True)
        step: tuple[Any, ...] = (generator.asend, None)
        try:
            while True:
                try:
                    item = await block.async_step(*step)
                except StopAsyncIteration:
                    break
                try:
                    step = (generator.asend, (yield item))
                except GeneratorExit:
                    await block.async_step(generator.aclose)
                    block.finish(None)
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the consumer, for the generator to see
                    step = (generator.athrow, error)
        except BaseException as error:
            block.finish(error)
            raise
        block.finish(None)

    return wrapper
