"""The URLs that `data.path` may be: of object stores (`s3://`, `gs://`, `az://BUCKET/...`) and of the web."""

import re
from urllib.parse import unquote

STORES = ("s3", "gs", "az")  # S3, Google Cloud Storage, Azure's blobs
AZURE = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING"
CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "az": AZURE,
    "azure": AZURE,  # as DVC calls it
}
# What is before an address's @. A password whose "/", "?" or "#" nobody wrote as "%2F" seems to end where the host
# would: then what follows the colon is no port, and everything up to the last @ is left out.
USERINFO = re.compile(r"://(?:[^/?#]*@|[^/?#\[]*:(?!\d*(?:[/?#]|$)).*@)", re.DOTALL)
# What keys of secrets in queries are called, also by AWS, Google and Azure.
SECRET_KEY = re.compile(
    r"token|secret|passw|pwd|passphrase|credential|authoriz|signature|bearer|jwt|^(auth|sas|sig)$|([-_.]|^)pass$"
    r"|^(x-)?(amz|goog)-|key$",
    re.IGNORECASE,
)
SETTING = re.compile(r"([?&#;]([^=&#;?]+)=)[^&#;\s]+")  # of a query or a fragment


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


def check_web_url(url: str) -> None:
    """Refuse an http(s) URL that carries a secret: params.yaml is committed, and documents are made from it.

    Raises:
        ValueError: It does; with where the secret goes instead.
    """
    if USERINFO.search(url):
        raise ValueError(
            "path has a user or a password in it, and params.yaml is committed: take them out, and write "
            "`machine HOST login USER password PASSWORD` into ~/.netrc"
        )
    key = _secret_key(url)
    if key is not None:
        raise ValueError(
            f"path has a secret in it ({key}), and params.yaml is committed: fetch the file and give its path, or keep "
            "it in a bucket, whose credentials are in the environment"
        )


def without_secrets(text: str) -> str:
    """Return an address to show: `***` in the place of user and password, and of secrets in its query.

    Other text stays as it is.
    """
    if "://" not in text:
        return text
    return SETTING.sub(_hide_secret, USERINFO.sub("://***@", text))


def _hide_secret(setting: re.Match[str]) -> str:
    return f"{setting[1]}***" if _is_secret(setting[2]) else setting[0]


def _secret_key(url: str) -> str | None:
    """Return the key in a URL's query or fragment whose value is a secret by its name."""
    return next((setting[2] for setting in SETTING.finditer(url) if _is_secret(setting[2])), None)


def _is_secret(key: str) -> bool:
    """Say whether a key of a query is that of a secret; servers read `%74oken` as `token`."""
    return SECRET_KEY.search(unquote(key)) is not None
