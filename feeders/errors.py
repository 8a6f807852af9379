"""What went wrong with an exchange's feed, named by what to do about it."""


class WebSocketError(Exception):
    """Base of those below."""


class WebSocketConnectionError(WebSocketError):
    """The connection could not be made, or is gone: connect again."""


class WebSocketUnavailableError(WebSocketConnectionError):
    """Nobody is there: no answer, or a gateway says so (5xx). Nobody refused us, so we may soon try again."""


class WebSocketTimeoutError(WebSocketError):
    """The other side did not answer in time: connect again."""


class WebSocketProtocolError(WebSocketError):
    """One message makes no sense: skip it, count it, keep the connection."""


class GaveUpError(WebSocketError):
    """The allowed number of failures in a row was reached."""


class MetadataError(ValueError):
    """The exchange's answer about its instruments makes no sense."""


class RestError(Exception):
    """The request brought no answer; it may later."""


class RestRefusedError(RestError):
    """The exchange will not answer this request, now or later."""


class RestBlockedError(RestError):
    """The exchange will not answer any request from here."""
