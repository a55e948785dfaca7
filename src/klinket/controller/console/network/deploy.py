"""How a connector is started, ready to paste: with the tokens in a file, never in a command line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

#: Characters of a name in file names, units and Kubernetes objects.
MAX_SLUG_CHARS = 40
#: Stands for an image with klinket in it; there is none to pull yet.
IMAGE = "my-image"

_UNIT = """[Unit]
Description=klinket connector {name}
Wants=network-online.target
After=network-online.target

[Service]
DynamicUser=yes
StateDirectory=klinket-{name}
LoadCredential=tokens:/etc/klinket/{name}.json
ExecStart=/usr/bin/klinket connector --tokens-file %d/tokens --state %S/klinket-{name}
Restart=always
RestartSec=5
LimitNOFILE=262144
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes

[Install]
WantedBy=multi-user.target"""

_COMPOSE = """services:
  {name}:
    image: {image}
    command: ["klinket", "connector", "--tokens-file", "/run/secrets/tokens", "--state", "/state"]
    restart: unless-stopped
    secrets: [tokens]
    volumes: ["{name}:/state"]
volumes:
  {name}: {{}}
secrets:
  tokens:
    file: ./{name}.json"""

_KUBERNETES = """apiVersion: v1
kind: Secret
metadata:
  name: {name}
stringData:
  tokens.json: |
{indented}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {name}
spec:
  serviceName: {name}
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      automountServiceAccountToken: false
      containers:
        - name: connector
          image: {image}
          command: ["klinket", "connector", "--tokens-file", "/tokens/tokens.json", "--state", "/state/connector"]
          volumeMounts:
            - {{name: tokens, mountPath: /tokens, readOnly: true}}
            - {{name: state, mountPath: /state}}
      volumes:
        - {{name: tokens, secret: {{secretName: {name}}}}}
  volumeClaimTemplates:
    - metadata: {{name: state}}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {{requests: {{storage: 1Gi}}}}"""


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to start a connector. `note`: what has to be there."""

    id: str
    label: str
    note: str
    text: str = field(repr=False)


def slug(name: str, id: int) -> str:
    """Return a connector's name as it may stand in file names, units and Kubernetes objects."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:MAX_SLUG_CHARS].strip("-")
    return plain if plain[:1].isalpha() else f"connector-{plain or id}"


def tokens_file(*, url: str, access_token: str, refresh_token: str, authority: str | None) -> str:
    """Return the file that `klinket connector --tokens-file` reads. `authority`: the controller's, PEM; None: a public one."""
    document = {"url": url, "access_token": access_token, "refresh_token": refresh_token, "controller_ca": authority}
    return json.dumps(document, indent=2)


def snippets(name: str, tokens: str) -> tuple[Snippet, ...]:
    """Return ways to start a connector. `name`: a slug; `tokens`: the text of its tokens file."""
    # The quoted marker keeps the shell from reading the text; printing to a file is no argument of a process.
    write = f"(umask 077; cat > {name}.json) <<'TOKENS'\n{tokens}\nTOKENS"
    run = f"klinket connector --tokens-file {name}.json --state ./klinket-{name}"
    docker = (
        f"docker run -d --name {name} --restart unless-stopped \\\n"
        f'    -v {name}:/state -v "$PWD/{name}.json:/tokens.json:ro" \\\n'
        f"    {IMAGE} klinket connector --tokens-file /tokens.json --state /state"
    )
    unit = _UNIT.format(name=name)
    systemd = (
        f"{write}\n"
        f"sudo install -D -m 0600 {name}.json /etc/klinket/{name}.json && rm {name}.json\n"
        f"sudo tee /etc/systemd/system/klinket-{name}.service > /dev/null <<'UNIT'\n{unit}\nUNIT\n"
        f"sudo systemctl daemon-reload && sudo systemctl enable --now klinket-{name}"
    )
    compose = f"{write}\ncat > compose.yaml <<'COMPOSE'\n{_COMPOSE.format(name=name, image=IMAGE)}\nCOMPOSE\ndocker compose up -d"
    indented = "\n".join("    " + line for line in tokens.splitlines())
    manifest = _KUBERNETES.format(name=name, image=IMAGE, indented=indented)
    kubernetes = f"kubectl apply -f - <<'MANIFEST'\n{manifest}\nMANIFEST"
    image = (
        f"“{IMAGE}” is an image of yours with klinket in it; there is none to pull yet. The state folder is a volume: keep it."
    )
    return (
        Snippet(
            "shell", "Shell", "klinket is installed. The state folder holds the connector's key: keep it.", f"{write}\n{run}"
        ),
        Snippet("systemd", "systemd", "klinket is at /usr/bin/klinket. The unit runs without root.", systemd),
        Snippet("docker", "Docker", image, f"{write}\n{docker}"),
        Snippet("compose", "Docker Compose", image, compose),
        Snippet("kubernetes", "Kubernetes", image, kubernetes),
    )
