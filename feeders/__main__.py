"""The feeders' command line: `python -m feeders`."""

from bookbus.command_line import make_app
from bookbus.feeders.commands.acl import acl
from bookbus.feeders.commands.audit import audit
from bookbus.feeders.commands.demo import demo
from bookbus.feeders.commands.health import health
from bookbus.feeders.commands.proxy import proxy
from bookbus.feeders.commands.record import record
from bookbus.feeders.commands.redis import redis
from bookbus.feeders.commands.replay import replay
from bookbus.feeders.commands.run import run
from bookbus.feeders.commands.simulate import simulate
from bookbus.feeders.commands.smoke import smoke

app = make_app("Publish order books of exchanges to Redis.")
for command in (run, record, replay, simulate, proxy, redis, demo, smoke, health, acl, audit):
    app.command()(command)


def main() -> None:
    """Entry point of `bookbus-feeder`."""
    app()


if __name__ == "__main__":
    main()
