"""How a job gets its key: texts to copy for a shell, CI systems, containers and systemd. The key itself is in none of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The environment variable in which klinket's client finds a key.
VARIABLE = "KLINKET_SERVICE_KEY"
#: Characters of the name of a key file, without its ending.
MAX_FILE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Snippet:
    """`text` is copied; `note`: what to do before it, or what to know."""

    id: str
    label: str
    text: str
    note: str = ""


def file_name(account: str) -> str:
    """Return the name of an account's key file: nothing in it that a shell, or YAML, would take for something else."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", account).strip("-").lower()[:MAX_FILE_CHARS].strip("-")
    return f"{plain or 'service'}.json"


def snippets(account: str) -> list[Snippet]:
    """Return the snippets for a service account of this name."""
    file = file_name(account)
    secret = f"klinket-{file.removesuffix('.json')}"
    return [
        Snippet(
            "shell",
            "Shell",
            f"chmod 600 {file}\nklinket run --key-file {file} -- ./your-command\n",
            f"In the folder of the downloaded file. Without a download: run cat > {file}, paste the key, press Enter and Ctrl-D.",
        ),
        Snippet(
            "github",
            "GitHub Actions",
            f"# gh secret set {VARIABLE} < {file}\n"
            "jobs:\n"
            "  test:\n"
            "    runs-on: ubuntu-24.04\n"
            "    steps:\n"
            "      - uses: actions/checkout@v4\n"
            "      - run: pip install klinket\n"
            "      - run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n"
            "      - run: klinket run -- ./your-command\n"
            "        env:\n"
            f"          {VARIABLE}: ${{{{ secrets.{VARIABLE} }}}}\n",
            f"The secret {VARIABLE} holds the whole file, from {{ to }}. "
            "The runner's image forbids namespaces until it is told otherwise.",
        ),
        Snippet(
            "gitlab",
            "GitLab CI",
            f"# {VARIABLE}: a masked variable with the output of: base64 -w0 {file}\n"
            "test:\n"
            "  image: python:3.12\n"
            "  before_script:\n"
            "    - pip install klinket\n"
            "  script:\n"
            "    - klinket run --capture proxy -- ./your-command\n",
            "Masked variables are one line, so the key goes in as base64; klinket reads both. "
            "Such runners mostly forbid namespaces: your command has to heed HTTP_PROXY or ALL_PROXY, which klinket sets.",
        ),
        Snippet(
            "docker",
            "Docker",
            f'export {VARIABLE}="$(base64 -w0 {file})"\n'
            f"docker run --rm -e {VARIABLE} --security-opt seccomp=unconfined --security-opt apparmor=unconfined \\\n"
            "    my-image klinket run -- ./your-command\n",
            "The image is yours, with klinket in it. Without the two options use klinket run --capture proxy.",
        ),
        Snippet(
            "kubernetes",
            "Kubernetes",
            f"# kubectl create secret generic {secret} --from-file=key.json={file}\n"
            "apiVersion: batch/v1\n"
            "kind: Job\n"
            "metadata:\n"
            f"  name: {secret}\n"
            "spec:\n"
            "  template:\n"
            "    spec:\n"
            "      restartPolicy: Never\n"
            "      containers:\n"
            "        - name: job\n"
            "          image: my-image\n"
            "          command: [klinket, run, --capture, proxy, --key-file, /run/klinket/key.json, --, ./your-command]\n"
            "          volumeMounts:\n"
            "            - {name: key, mountPath: /run/klinket, readOnly: true}\n"
            "      volumes:\n"
            "        - name: key\n"
            f"          secret: {{secretName: {secret}}}\n",
            "The image is yours, with klinket in it. Your command has to heed HTTP_PROXY or ALL_PROXY, which klinket sets.",
        ),
        Snippet(
            "systemd",
            "systemd, a job",
            "[Service]\n"
            "Type=oneshot\n"
            "User=your-user\n"
            f"LoadCredential=key:/etc/klinket/{file}\n"
            "ExecStart=/usr/bin/klinket run --key-file %d/key -- /usr/local/bin/your-command\n",
            f"/etc/klinket/{file} belongs to root, with mode 600. Leave RestrictNamespaces= and PrivateUsers= out of the unit.",
        ),
        Snippet(
            "client",
            "systemd, a proxy for long-running programs",
            "[Service]\n"
            "DynamicUser=yes\n"
            f"LoadCredential=key:/etc/klinket/{file}\n"
            "ExecStart=/usr/bin/klinket client --key-file %d/key --http-proxy 127.0.0.1:3128 --socks 127.0.0.1:1080\n"
            "Restart=on-failure\n",
            "Programs of this machine reach what was granted through the proxies, and nothing else. "
            "Every user of the machine can use them.",
        ),
    ]
