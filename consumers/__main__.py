"""The readers' command line: `python -m consumers`."""

from bookbus.command_line import make_app
from bookbus.consumers.commands.analyze import analyze, compare
from bookbus.consumers.commands.arbitrage import arbitrage
from bookbus.consumers.commands.calibrate import calibrate
from bookbus.consumers.commands.list import list_readers
from bookbus.consumers.commands.run import run
from bookbus.consumers.commands.show import show
from bookbus.consumers.commands.tail import tail

app = make_app("Read order books from Redis.")
for command in (run, show, tail, arbitrage, calibrate, analyze, compare):
    app.command()(command)
app.command("list")(list_readers)


def main() -> None:
    """Entry point of `bookbus`."""
    app()


if __name__ == "__main__":
    main()
