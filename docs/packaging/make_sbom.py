"""The bill of materials of hpcxrf and all that it needs to run, as installed here: CycloneDX 1.6, JSON, validated.

    python docs/packaging/make_sbom.py > hpcxrf.cdx.json

It needs the extra `release`, and holds what an installation without extras has. Names, versions, licences and the
graph of dependencies are those of the packages' own metadata.
"""

import re
import sys
from importlib.metadata import Distribution, distribution

from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT = "hpcxrf"


def normalise(name: str) -> str:
    """Write the name of a package as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_needs(package: Distribution, extras: frozenset[str]) -> dict[str, frozenset[str]]:
    """List what a package needs on this machine: names, with the extras that are asked of each."""
    found: dict[str, frozenset[str]] = {}
    for text in package.requires or ():
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            found[normalise(need.name)] = frozenset(need.extras)
    return found


def walk(root: str) -> tuple[dict[str, Distribution], dict[str, set[str]]]:
    """Find all packages that the root needs, and which of them each one needs."""
    packages: dict[str, Distribution] = {}
    needs: dict[str, set[str]] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    while waiting:
        name, extras = waiting.pop()
        packages.setdefault(name, distribution(name))
        below = list_needs(packages[name], frozenset({"", *extras}))
        new = {one: asked for one, asked in below.items() if one not in needs.get(name, set())}
        needs.setdefault(name, set()).update(below)
        waiting += new.items()
    return packages, needs


def name_licences(package: Distribution) -> list[str]:
    """Name the licences of a package whose metadata has no expression of SPDX."""
    facts = package.metadata
    short = [text for text in facts.get_all("License", []) if 0 < len(text) < 80]
    classified = [text.rpartition(" :: ")[2] for text in facts.get_all("Classifier", []) if text.startswith("License")]
    return short or classified


def describe(package: Distribution, kind: ComponentType) -> Component:
    """Describe a package by its metadata."""
    facts = package.metadata
    name, expression = normalise(facts["Name"]), facts.get("License-Expression")
    licences = [expression] if expression else name_licences(package)
    home = next((line.partition(",")[2].strip() for line in facts.get_all("Project-URL", [])), facts.get("Home-page"))
    url = PackageURL("pypi", name=name, version=package.version)
    return Component(
        type=kind,
        name=name,
        version=package.version,
        description=facts.get("Summary"),
        purl=url,
        bom_ref=str(url),
        licenses=[LicenseExpression(one) if one == expression else DisjunctiveLicense(name=one) for one in licences],
        external_references=[ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(home))] if home else (),
    )


def make_bom(root: str = ROOT) -> Bom:
    """Make the bill of materials of a package that is installed."""
    packages, needs = walk(root)
    bom = Bom()
    bom.metadata.component = described = describe(packages[root], ComponentType.APPLICATION)
    parts = {name: describe(one, ComponentType.LIBRARY) for name, one in sorted(packages.items()) if name != root}
    bom.components.update(parts.values())
    for name, below in needs.items():
        bom.register_dependency(described if name == root else parts[name], [parts[one] for one in sorted(below)])
    return bom


def write_json(bom: Bom) -> str:
    """Write a bill as JSON.

    Raises:
        SystemExit: it is not valid CycloneDX.
    """
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"the bill of materials is not valid: {fault}")
    return text + "\n"


if __name__ == "__main__":
    sys.stdout.write(write_json(make_bom()))
