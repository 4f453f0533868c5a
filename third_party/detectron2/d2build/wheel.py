"""Write a wheel: a zip of the files, metadata from pyproject.toml, and RECORD."""

import base64
import hashlib
import tomllib
import zipfile

DATE = (2021, 11, 15, 0, 0, 0)  # v0.6's; a fixed one, so that equal inputs give equal wheels


def write(directory, project, files, license_text):
    """Write the wheel into `directory`; return its file name."""
    with open(project / "pyproject.toml", "rb") as stream:
        fields = tomllib.load(stream)["project"]
    info = f"{fields['name']}-{fields['version']}.dist-info"
    files = {
        **dict(sorted(files.items())),
        f"{info}/METADATA": _metadata(fields).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: d2build\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/licenses/LICENSE": license_text,
    }
    record = [_record_line(path, data) for path, data in files.items()] + [f"{info}/RECORD,,\n"]
    files[f"{info}/RECORD"] = "".join(record).encode()
    name = f"{fields['name']}-{fields['version']}-py3-none-any.whl"
    with zipfile.ZipFile(directory / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, DATE)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return name


def _record_line(path, data):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}\n"


def _metadata(fields):
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {fields['name']}",
        f"Version: {fields['version']}",
        f"Summary: {fields['description']}",
        f"License-Expression: {fields['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {fields['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in fields["dependencies"]),
    ]
    for extra, requirements in fields["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {r}; extra == "{extra}"' for r in requirements]
    return "\n".join(lines) + "\n"
