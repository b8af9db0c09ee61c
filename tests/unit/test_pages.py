"""How the page's files are served: small, kept for as long as they do not change, never of two versions."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from gateway.pages import WEB, Pages

LIMIT_BYTES = 100 * 1000


def test_the_whole_page_is_small() -> None:
    assets = Pages("1.2.3").assets
    sent = {name: len(asset.gzipped or asset.body) for name, asset in assets.items()}
    assert sum(sent.values()) < LIMIT_BYTES, sent


def test_what_is_sent_compressed_is_the_file() -> None:
    for name, asset in Pages("1.2.3").assets.items():
        if asset.gzipped:
            assert gzip.decompress(asset.gzipped) == asset.body, name


def test_the_root_names_every_module_by_the_version_and_nothing_is_left_to_fill_in() -> None:
    pages = Pages("1.2.3")
    index, worker = (pages.assets[name].body.decode() for name in ("index.html", "worker.js"))
    modules = [path.relative_to(WEB).as_posix() for path in WEB.rglob("*.js") if path.name != "worker.js"]
    assert modules
    for name in modules:
        assert f'href="/web/{pages.version}/{name}"' in index
        assert f'"/web/{pages.version}/{name}"' in worker
    assert "1.2.3" in index
    assert not re.search(r"@\w+@", index + worker)


def test_a_change_of_any_file_changes_the_version(tmp_path: Path) -> None:
    for name in ("index.html", "worker.js", "app.js"):
        (tmp_path / name).write_text("one")
    before = Pages("1", tmp_path).version
    (tmp_path / "app.js").write_text("two")
    assert Pages("1", tmp_path).version != before


def test_the_manifest_makes_the_page_installable() -> None:
    assets = Pages("1.2.3").assets
    manifest = json.loads(assets["manifest.webmanifest"].body)
    icons = {icon["sizes"] for icon in manifest["icons"] if icon["src"] in assets}
    assert {"192x192", "512x512"} <= icons
    assert any(icon.get("purpose") == "maskable" for icon in manifest["icons"])


def test_type_declarations_are_not_served() -> None:
    assert not any(name.endswith(".ts") for name in Pages("1.2.3").assets)
