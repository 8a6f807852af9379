"""Exchange to bus: sockets, order books, publisher."""

import schemas

if not hasattr(schemas, "BOOKBUS_CONTRACT"):
    raise ImportError(
        f"another package called 'schemas' ({schemas.__file__}) hides the one of bookbus; "
        "remove it from sys.path or install bookbus in an environment of its own"
    )
