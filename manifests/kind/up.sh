#!/usr/bin/env bash
# Brings up the whole demonstration in kind: cluster, Prometheus, operator, application behind Envoy, an RLScaler.
#
#   manifests/kind/up.sh              the application of manifests/demo, scaled by manifests/samples/simple.yaml
#   manifests/kind/up.sh --gateway    also Envoy Gateway and two pools whose HTTPRoute weights follow them
#   kind delete cluster --name rl-scaler
#
# Needs docker, kind, kubectl and helm. Running it again brings everything up to date.
set -euo pipefail

CLUSTER=rl-scaler
IMAGE=rl-scaler:0.1.0
ENVOY_GATEWAY=v1.1.2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
manifests=$(dirname "$here")
root=$(dirname "$manifests")
gateway=false

for argument in "$@"; do
  case "$argument" in
    --gateway) gateway=true ;;
    *)
      echo "up.sh: unknown argument '$argument'; allowed: --gateway" >&2
      exit 2
      ;;
  esac
done

for tool in docker kind kubectl helm; do
  if ! command -v "$tool" >/dev/null; then
    echo "up.sh: $tool is needed and was not found" >&2
    exit 1
  fi
done

context=kind-$CLUSTER
k() { kubectl --context "$context" "$@"; }

echo "== cluster"
if ! kind get clusters | grep -qx "$CLUSTER"; then
  kind create cluster --config "$here/cluster.yaml" --wait 120s
fi

echo "== operator image"
docker build --tag "$IMAGE" "$root"
kind load docker-image "$IMAGE" --name "$CLUSTER"

echo "== Prometheus"
k apply -f "$manifests/prometheus"
k --namespace monitoring rollout status deployment/prometheus --timeout 180s

echo "== operator"
k apply --server-side -f "$root/charts/crds/rlscalers.yaml"
helm upgrade --install rl-scaler "$root/charts" --kube-context "$context" \
  --namespace rl-scaler --create-namespace --values "$here/values.yaml" --wait --timeout 3m

echo "== application"
k apply -f "$manifests/demo"
k --namespace demo rollout status deployment/web --timeout 180s
k --namespace demo rollout status deployment/edge --timeout 180s
k apply -f "$manifests/samples/simple.yaml"

if [ "$gateway" = true ]; then
  echo "== Gateway API and two pools"
  helm upgrade --install envoy-gateway oci://docker.io/envoyproxy/gateway-helm --version "$ENVOY_GATEWAY" \
    --kube-context "$context" --namespace envoy-gateway-system --create-namespace --wait --timeout 5m
  k apply -f "$manifests/gateway"
  k --namespace pools wait --for=condition=Programmed gateway/web --timeout 180s
  k apply -f "$manifests/samples/pools.yaml"
fi

cat <<END

The application answers at http://localhost:8080 and Prometheus at http://localhost:9090.

  kubectl --context $context get rls --all-namespaces --watch
  kubectl --context $context --namespace demo scale deployment/load --replicas 1     # more or less traffic
  kubectl --context $context --namespace demo describe rls web
END
