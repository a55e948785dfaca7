# A private network, its connector, a database, and a service account with a key for a CI job that reaches it.
#
#   export TWINGATE_API_TOKEN=kl_api_...       # an API token of klinket's with the scope provision
#   terraform init && terraform apply -var network=acme -var domain=example.com

terraform {
  required_providers {
    twingate = {
      source  = "Twingate/twingate"
      version = "~> 4.0"
    }
  }
}

variable "network" {
  description = "The first label of the controller's host name: acme of acme.example.com."
  type        = string
}

variable "domain" {
  description = "The rest of it, with the port unless that is 443: example.com, example.com:8443."
  type        = string
}

provider "twingate" {
  network = var.network
  url     = var.domain
}

resource "twingate_remote_network" "office" {
  name = "office"
}

resource "twingate_connector" "office_1" {
  name              = "office-1"
  remote_network_id = twingate_remote_network.office.id
}

resource "twingate_connector_tokens" "office_1" {
  connector_id = twingate_connector.office_1.id
}

resource "twingate_service_account" "ci" {
  name = "ci"
}

resource "twingate_service_account_key" "runner" {
  name               = "runner"
  service_account_id = twingate_service_account.ci.id
  expiration_time    = 90 # days; 0, the provider's default, is for ever
}

resource "twingate_resource" "orders" {
  name              = "Orders database"
  address           = "db.internal"
  remote_network_id = twingate_remote_network.office.id

  protocols = {
    allow_icmp = false
    tcp = {
      policy = "RESTRICTED"
      ports  = ["5432"]
    }
    udp = {
      policy = "RESTRICTED"
    }
  }

  access_service {
    service_account_id = twingate_service_account.ci.id
  }
}

output "key_file" {
  description = "For `klinket run --key-file`: terraform output -raw key_file > ci-runner.json"
  value       = twingate_service_account_key.runner.token
  sensitive   = true
}

output "connector_environment" {
  description = "For `klinket connector`, which also needs KLINKET_URL and --state."
  value = {
    KLINKET_ACCESS_TOKEN  = twingate_connector_tokens.office_1.access_token
    KLINKET_REFRESH_TOKEN = twingate_connector_tokens.office_1.refresh_token
  }
  sensitive = true
}
