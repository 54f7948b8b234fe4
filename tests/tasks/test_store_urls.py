import pytest

from tasks.store_urls import check_web_url, without_secrets

SHORT = ("pass", "PASS", "db_pass", "user-pass", "jwt", "id_jwt", "bearer", "sas", "sig", "auth")
HARMLESS = ("compass", "bypass", "passed", "pass_through", "passport", "sasha", "design", "author", "keyword", "%66ile")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://example.com/x.jpg", "https://example.com/x.jpg"),
        ("https://me:hush@example.com:8080/x.jpg", "https://***@example.com:8080/x.jpg"),
        ("https://token@example.com", "https://***@example.com"),
        ("FTP://me:a@b:c@example.com/x", "FTP://***@example.com/x"),
        ("https://me:a/b@example.com/x", "https://***@example.com/x"),
        ("https://me:a?b#c@d@example.com/x", "https://***@example.com/x"),
        (" https://me:hush@example.com/x", " https://***@example.com/x"),
        ("https://example.com:8080/@me/x@2.jpg?mail=a@b.c", "https://example.com:8080/@me/x@2.jpg?mail=a@b.c"),
        ("s3://b/x.jpg?X-Amz-Signature=ab%2Fc&size=2", "s3://b/x.jpg?X-Amz-Signature=***&size=2"),
        ("https://h/x?sv=1;sig=hush#access_token=hush", "https://h/x?sv=1;sig=***#access_token=***"),
        ("https://h/x?pass=hush&%74oken=hush&s%61s=hush", "https://h/x?pass=***&%74oken=***&s%61s=***"),
        ("https://h/x?compass=n&passed=1&sasha=a&%61uthor=me", "https://h/x?compass=n&passed=1&sasha=a&%61uthor=me"),
        ("https://h/x?author=me&download=1#top", "https://h/x?author=me&download=1#top"),
        ("http://[::1]:8080/x@2.jpg", "http://[::1]:8080/x@2.jpg"),
        ("photos?token=x/a.jpg", "photos?token=x/a.jpg"),
        ("photos/me:hush@x.jpg", "photos/me:hush@x.jpg"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("https://me:hush@example.org/pets.zip", "a user or a password in it, .* ~/.netrc$"),
        ("https://hush@example.org/pets.zip", "a user or a password in it"),
        ("https://me:hu/sh@example.org/pets.zip", "a user or a password in it"),
        ("https://example.org/pets.zip?token=hush", r"a secret in it \(token\), .* in the environment$"),
        ("https://example.org/pets.zip?X-Goog-Signature=hush", "a secret in it"),
        ("https://example.org/pets.zip?size=1&sig=hush", r"a secret in it \(sig\)"),
        ("https://example.org/pets.zip#api_key=hush", r"a secret in it \(api_key\)"),
        ("https://example.org/pets.zip?%74oken=hush", r"a secret in it \(%74oken\)"),
        *((f"https://example.org/pets.zip?{key}=hush", rf"a secret in it \({key}\)") for key in SHORT),
    ],
)
def test_addresses_with_secrets_are_refused_without_telling_them(url: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice) as refused:
        check_web_url(url)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/pets.zip",
        "http://example.org:8080/@me/pets@2.zip?download=1&author=me",
        "http://[::1]:8/x",
        *(f"https://example.org/pets.zip?{key}=1" for key in HARMLESS),
    ],
)
def test_other_addresses_are_fine(url: str) -> None:
    check_web_url(url)
