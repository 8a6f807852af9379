"""What can go wrong with an exchange's feed: one tree, each class named by what to do about it."""


class FeederError(Exception):
    """Base of all those below."""


class WebSocketError(FeederError):
    """A connection, or a message on it."""


class WebSocketConnectionError(WebSocketError):
    """The connection could not be made, or is gone: connect again."""


class WebSocketUnavailableError(WebSocketConnectionError):
    """Nothing listens: no answer, or a gateway says so (5xx). It is no refusal, so try again soon."""


class WebSocketTimeoutError(WebSocketError):
    """The other side did not answer in time: connect again."""


class WebSocketProtocolError(WebSocketError):
    """One message makes no sense: skip it, count it, keep the connection."""


class GaveUpError(WebSocketError):
    """The allowed number of failures in a row was reached: end."""


class RestError(FeederError):
    """The request brought no answer: try again later."""


class RestRefusedError(RestError):
    """The exchange refuses this request, now and later: do not repeat it soon."""


class RestBlockedError(RestError):
    """The exchange refuses every request from here: send no more."""


class MetadataError(FeederError):
    """The exchange's answer about its instruments makes no sense: use the last one that did."""


class ReplayError(FeederError):
    """A recording cannot be replayed: end."""
