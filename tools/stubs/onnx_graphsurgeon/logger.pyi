from contextlib import AbstractContextManager

class Logger:
    severity: int
    def suppress(self, severity: int = ...) -> AbstractContextManager[Logger]: ...

G_LOGGER: Logger
