"""What hostile files hold, by kind: JSON texts of values, put in the place of a good one."""

KINDS = {
    "huge number": ("1e999", "-1e308", "1e308", "1e-400", "9" * 400, "-" + "9" * 30, "99999", "1" + "0" * 18),
    "deep nesting": (
        "[" * 12 + "]" * 12,
        "[" * 30 + "]" * 30,
        '{"a":' * 30 + "1" + "}" * 30,
        '[{"a":' * 2000 + "1" + "}]" * 2000,
        "[" * 3000,
    ),
    "wrong type": (
        "true",
        "null",
        '""',
        '"7"',
        "[]",
        "{}",
        "[0, 0]",
        "[-1]",
        "[1.5]",
        "[[]]",
        "-1",
        "0.1e1",
        '"' + "x" * 1500 + '"',
        "[" + "1," * 300 + "1]",
    ),
    "not a number": ("NaN", "Infinity", "-Infinity", '"nan"', '"inf"', "[NaN]"),
    "control character": (
        '"\\u0000"',
        '"a\\u001b[31m"',
        '"\\u202e"',
        '"\\u2028"',
        '"\\ud800"',
        '"\\u0085"',
        '"\x07"',
        '"\x1b]0;x\x07"',
        '"\u2066"',
        '["\\u001b"]',
    ),
    "path trick": (
        '"../../../etc/passwd"',
        '"/etc/passwd"',
        '"file:///etc/passwd"',
        '"/dev/zero"',
        '"~/.ssh/id_rsa"',
        '"..\\\\..\\\\x"',
        '"%2e%2e/x"',
        '"$(id)"',
        '"{0.__class__}"',
        '{"__proto__": 1}',
    ),
}
"""Kind -> texts; a seventh kind, the duplicate key, needs the text around it."""
DUPLICATE = "duplicate key"
EVERY_KIND = (*KINDS, DUPLICATE)


def at(pool, number):
    """Entry of a pool that a drawn byte chooses."""
    return pool[number % len(pool)]
