"""conf/pitr.toml documents every key; the table of keys is free of clashes."""

from __future__ import annotations

import re
from pathlib import Path

from pitr.config import all_keys, load_settings
from pitr.config.environment import known_variables
from pitr.config.show import effective, shown_value

CONF = Path(__file__).parents[2] / "conf" / "pitr.toml"


def test_it_loads() -> None:
    settings = load_settings(config=str(CONF), environ={})
    assert settings.cluster.name == "shop"
    assert settings.one_repo().url == "s3://acme-pg/prod"


def test_every_key_stands_in_it_and_no_other() -> None:
    spelled = {spelling: key.name for keys in all_keys().values() for key in keys for spelling in key.spellings}
    written = set()
    for line in CONF.read_text().splitlines():
        if match := re.match(r"^#?([a-z][a-z0-9_]*) = ", line):
            name = match[1]
            written.add(spelled.get(name) or spelled[f"policy.{name}"])
    assert written == set(spelled.values())


def test_it_loads_with_each_commented_key_alone(tmp_path: Path) -> None:
    lines = CONF.read_text().splitlines()
    needs = {"access_key": "secret_key_file", "secret_key_file": "access_key"}
    needs |= dict.fromkeys(("key_command", "passphrase_file", "recovery_key_file"), "")
    tried = 0
    for index, line in enumerate(lines):
        match = re.match(r"^#([a-z][a-z0-9_]*) = ", line)
        if match is None:
            continue
        changed = [*lines]
        changed[index] = line[1:]
        partner = needs.get(match[1])
        if partner == "":  # another way to unlock: takes the place of key_file
            changed = ["" if text.startswith("key_file") else text for text in changed]
        elif partner:
            changed = [text[1:] if text.startswith(f"#{partner} ") else text for text in changed]
        path = tmp_path / "pitr.toml"
        path.write_text("\n".join(changed))
        load_settings(config=str(path), environ={})
        tried += 1
    assert tried > 15


def test_commented_defaults_are_the_defaults() -> None:
    text = CONF.read_text()
    for keys in all_keys().values():
        for key in keys:
            match = re.search(rf'^#{re.escape(key.name)} = "?([^"\n]+?)"?$', text, re.MULTILINE)
            if match and key.default is not None and key.kind != "choice" and key.default is not False:
                assert match[1] == shown_value(key, key.default), key.name


def test_a_variable_names_one_key_of_one_section() -> None:
    every = [variable for keys in all_keys().values() for key in keys for variable in key.variables]
    assert len(every) == len(set(every)) == len(known_variables())
    assert "PITR_KEY_FILE" in every
    assert "PITR_SECRET_KEY_FILE" in every
    assert "PITR_DSN_FILE" in every


def test_every_key_is_shown() -> None:
    settings = load_settings(config=str(CONF), environ={})
    shown = {row.key for row in effective(settings)}
    assert shown == {key.name for keys in all_keys().values() for key in keys}
