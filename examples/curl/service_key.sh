#!/usr/bin/env bash
# The Admin API with curl and jq alone: from an empty network to a service key and its grant, then the key's end.
#
#   export KLINKET_URL=https://klinket.example.com:8443 KLINKET_API_TOKEN=kl_api_...   # a token with the scope provision
#   export KLINKET_CA=controller-ca.pem        # only for a controller whose certificate no public authority has signed
#   examples/curl/service_key.sh KEY-FILE
set -euo pipefail
shopt -s inherit_errexit
umask 077

key_file=${1:?usage: service_key.sh KEY-FILE}
: "${KLINKET_URL:?the controller, https://HOST:PORT}" "${KLINKET_API_TOKEN:?an API token with the scope provision}"

# ask PATH QUERY [VARIABLES]: prints the answer's data. Ends with the text of what went wrong: HTTP, GraphQL or ok=false.
ask() {
  local variables='{}' answer problem
  [ $# -lt 3 ] || variables=$3
  # The token comes as a file that is a pipe: in the command line other users of the machine could read it.
  answer=$(jq -n --arg query "$2" --argjson variables "$variables" '{$query, $variables}' |
    curl --silent --show-error --fail-with-body --max-time 35 --retry 5 ${KLINKET_CA:+--cacert "$KLINKET_CA"} \
      --header @<(printf 'X-API-KEY: %s\n' "$KLINKET_API_TOKEN") --header 'Content-Type: application/json' \
      --data @- "$KLINKET_URL$1") || { echo "$answer" >&2; return 1; }
  problem=$(jq -r '[.errors[]?.message, (.data // {} | .[] | objects | select(.ok == false).error)] | join("; ")' <<<"$answer")
  [ -z "$problem" ] || { echo "the controller says: $problem" >&2; return 1; }
  jq .data <<<"$answer"
}

api=/api/graphql/ own=/api/klinket/graphql/

echo "1. a remote network, a connector, its tokens"
network=$(ask $api 'mutation($name: String!) { remoteNetworkCreate(name: $name) { ok error entity { id } } }' \
  '{"name": "office"}' | jq -r .remoteNetworkCreate.entity.id)
connector=$(ask $api 'mutation($network: ID!) { connectorCreate(remoteNetworkId: $network, name: "office-1") { ok error entity { id } } }' \
  "$(jq -n --arg network "$network" '{$network}')" | jq -r .connectorCreate.entity.id)
ask $api 'mutation($id: ID!) { connectorGenerateTokens(connectorId: $id) { ok error connectorTokens { accessToken refreshToken } } }' \
  "$(jq -n --arg id "$connector" '{$id}')" | jq '.connectorGenerateTokens.connectorTokens | {access_token: .accessToken,
    refresh_token: .refreshToken, url: env.KLINKET_URL}' >"$key_file.connector"
echo "   for the connector: $key_file.connector"

echo "2. a resource, a service account that is granted it, a key for 30 days"
resource=$(ask $api 'mutation($network: ID!, $open: ProtocolsInput) { resourceCreate(name: "Orders database", address: "db.internal",
    remoteNetworkId: $network, protocols: $open) { ok error entity { id } } }' \
  "$(jq -n --arg network "$network" '{$network, open: {allowIcmp: false, udp: {policy: "RESTRICTED"},
    tcp: {policy: "RESTRICTED", ports: [{start: 5432, end: 5432}]}}}')" | jq -r .resourceCreate.entity.id)
account=$(ask $api 'mutation($resource: ID!) { serviceAccountCreate(name: "ci", resourceIds: [$resource]) { ok error entity { id } } }' \
  "$(jq -n --arg resource "$resource" '{$resource}')" | jq -r .serviceAccountCreate.entity.id)
created=$(ask $api 'mutation($account: ID!) { serviceAccountKeyCreate(serviceAccountId: $account, expirationTime: 30, name: "runner") {
    ok error token entity { id } } }' "$(jq -n --arg account "$account" '{$account}')")
key=$(jq -r .serviceAccountKeyCreate.entity.id <<<"$created")
jq -r .serviceAccountKeyCreate.token <<<"$created" >"$key_file"
echo "   for the job: $key_file"

echo "3. every key of every account, page by page"
after=null more=true
while [ "$more" = true ]; do
  page=$(ask $own 'query($after: String) { serviceKeys(first: 50, after: $after) { pageInfo { hasNextPage endCursor }
      edges { node { serviceAccountName name status expiresAt lastUse { time } } } } }' "{\"after\": $after}")
  jq -r '.serviceKeys.edges[].node | "   \(.serviceAccountName)/\(.name) \(.status), expires \(.expiresAt), last use \(.lastUse.time // "never")"' <<<"$page"
  after=$(jq .serviceKeys.pageInfo.endCursor <<<"$page") more=$(jq .serviceKeys.pageInfo.hasNextPage <<<"$page")
done

echo "4. would it reach db.internal:5432?"
ask $own 'query($account: ID!) { explain(serviceAccountId: $account, host: "db.internal", port: 5432) { allowed steps { ok text } } }' \
  "$(jq -n --arg account "$account" '{$account}')" | jq -r '.explain.steps[] | "   \(if .ok then "yes" else "NO " end) \(.text)"'

echo "5. revoke the key, then delete it"
id=$(jq -n --arg id "$key" '{$id}')
ask $api 'mutation($id: ID!) { serviceAccountKeyRevoke(id: $id) { ok error entity { status } } }' "$id" |
  jq -r '"   " + .serviceAccountKeyRevoke.entity.status'
ask $api 'mutation($id: ID!) { serviceAccountKeyDelete(id: $id) { ok error } }' "$id" >/dev/null
rm "$key_file"
