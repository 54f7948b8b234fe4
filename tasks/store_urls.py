"""The URLs of object stores that `data.path` may be: `s3://`, `gs://` and `az://BUCKET/...`."""

STORES = ("s3", "gs", "az")  # S3, Google Cloud Storage, Azure's blobs
AZURE = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING"
CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "az": AZURE,
    "azure": AZURE,  # as DVC calls it
}


def scheme_of(url: str) -> str:
    """Return a URL's scheme in lower case; an empty string for a path."""
    scheme, found, _ = url.partition("://")
    return scheme.lower() if found else ""


def is_store_url(path: str) -> bool:
    """Return whether a path names something in an object store."""
    return scheme_of(path) in STORES


def check_store_url(url: str) -> None:
    """Refuse a URL that names no bucket, or may carry credentials: it is written into dvc.lock and documents.

    Raises:
        ValueError: It does; with what to do instead.
    """
    scheme, place = scheme_of(url), url.partition("://")[2].partition("/")[0]
    if "@" in place or ":" in place or "?" in url:
        raise ValueError(f"path has credentials or a query in it: take them out, and {CREDENTIALS[scheme]}")
    if not place:
        raise ValueError(f"path names no bucket: {scheme}://BUCKET/...")
