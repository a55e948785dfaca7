"""A private network, its connector, a database, and a service account with a key for a CI job that reaches it.

export TWINGATE_API_TOKEN=kl_api_...      # an API token of klinket's with the scope provision
pulumi config set twingate:network acme && pulumi config set twingate:url example.com && pulumi up
"""

import pulumi
import pulumi_twingate as twingate

office = twingate.TwingateRemoteNetwork("office", name="office")
connector = twingate.TwingateConnector("office-1", name="office-1", remote_network_id=office.id)
tokens = twingate.TwingateConnectorTokens("office-1", connector_id=connector.id)

account = twingate.TwingateServiceAccount("ci", name="ci")
#: Days; 0, the provider's default, is for ever.
key = twingate.TwingateServiceAccountKey("runner", name="runner", service_account_id=account.id, expiration_time=90)

twingate.TwingateResource(
    "orders",
    name="Orders database",
    address="db.internal",
    remote_network_id=office.id,
    protocols={"allow_icmp": False, "tcp": {"policy": "RESTRICTED", "ports": ["5432"]}, "udp": {"policy": "RESTRICTED"}},
    access_services=[{"service_account_id": account.id}],
)

# pulumi stack output --show-secrets key_file > ci-runner.json
pulumi.export("key_file", pulumi.Output.secret(key.token))
pulumi.export("KLINKET_ACCESS_TOKEN", pulumi.Output.secret(tokens.access_token))
pulumi.export("KLINKET_REFRESH_TOKEN", pulumi.Output.secret(tokens.refresh_token))
