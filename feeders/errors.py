"""Errors of an exchange's feed: one tree; each class states what to do."""


class FeederError(Exception):
    """Base of all those below."""


class WebSocketError(FeederError):
    """A connection, or a message on it."""


class WebSocketConnectionError(WebSocketError):
    """The connection could not be made, or is gone: connect again."""


class WebSocketUnavailableError(WebSocketConnectionError):
    """The server is down: no answer, or a gateway error (5xx). It is no refusal, so try again soon."""


class WebSocketTimeoutError(WebSocketError):
    """The other side did not answer in time: connect again."""


class WebSocketProtocolError(WebSocketError):
    """One message is invalid: skip it, count it, keep the connection."""


class GaveUpError(WebSocketError):
    """The allowed number of failures in a row was reached: end."""


class RestError(FeederError):
    """The request got no answer: try again later."""


class RestRefusedError(RestError):
    """The exchange refuses this request, now and later: do not repeat it soon."""


class RestBlockedError(RestError):
    """The exchange refuses every request from here: send no more."""


class MetadataError(FeederError):
    """The exchange's list of instruments is invalid: use the last valid one."""


class ReplayError(FeederError):
    """A recording cannot be replayed: end."""
