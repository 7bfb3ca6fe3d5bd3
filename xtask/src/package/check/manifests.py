"""Checks deploy/ against the schemas and what was measured. Arguments: deploy, the schemas' folder, capabilities."""
import glob
import json
import sys
import zipfile

import jsonschema
import kubernetes_validate
import yaml

deploy, tools, capabilities = sys.argv[1], sys.argv[2], sys.argv[3].split(",")


def same(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what} is {found!r}, not {wanted!r}")


with open(f"{deploy}/daemonset.yaml") as file:
    documents = list(yaml.safe_load_all(file))
for document in documents:
    for version in ("1.30", "1.37"):
        kubernetes_validate.validate(document, version, strict=True)
same("what daemonset.yaml holds", [d["kind"] for d in documents], ["Namespace", "ConfigMap", "DaemonSet"])
pod = documents[2]["spec"]["template"]["spec"]
container = pod["containers"][0]
security = container["securityContext"]
same("DaemonSet: hostPID", pod["hostPID"], True)
same("DaemonSet: add", security["capabilities"]["add"], capabilities)
same("DaemonSet: drop", security["capabilities"]["drop"], ["ALL"])
same("DaemonSet: read-only root", security["readOnlyRootFilesystem"], True)
same("DaemonSet: privileged", security.get("privileged", False), False)
same("DaemonSet: memory", container["resources"]["limits"]["memory"], "192Mi")
same("labels", documents[2]["spec"]["selector"]["matchLabels"], documents[2]["spec"]["template"]["metadata"]["labels"])
mounted = {mount["name"] for mount in container["volumeMounts"]}
same("DaemonSet: volumes", {volume["name"] for volume in pod["volumes"]}, mounted)

with open(f"{deploy}/compose.yaml") as file:
    compose = yaml.safe_load(file)
wheel = glob.glob(f"{tools}/docker_compose-*.whl")[0]
schema = json.loads(zipfile.ZipFile(wheel).read("compose/config/compose_spec.json"))
jsonschema.validate(compose, schema)
service = compose["services"]["teracron-agent"]
same("compose: cap_add", service["cap_add"], capabilities)
same("compose: cap_drop", service["cap_drop"], ["ALL"])
same("compose: pid", service["pid"], "host")
same("compose: read_only", service["read_only"], True)
same("compose: mem_limit", service["mem_limit"], "192m")
same("compose: image", service["image"], container["image"])
