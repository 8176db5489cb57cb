{{- define "rl-scaler.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "rl-scaler.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rl-scaler.labels" -}}
{{ include "rl-scaler.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "rl-scaler.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "rl-scaler.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "rl-scaler.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A pod's host name is this with its index behind it, 63 characters at most. */}}
{{- define "rl-scaler.tuningName" -}}
{{- printf "%s-tuning" (include "rl-scaler.fullname" . | trunc 50 | trimSuffix "-") -}}
{{- end -}}

{{/* Not the operator's selector labels: its Service and NetworkPolicy must not find these pods. */}}
{{- define "rl-scaler.tuningLabels" -}}
app.kubernetes.io/name: {{ printf "%s-tuning" (default .Chart.Name .Values.nameOverride | trunc 56 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: tuning
{{- end -}}

{{- define "rl-scaler.tuningImage" -}}
{{- $image := .Values.tuning.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "rl-scaler.schedulingName" -}}
{{- printf "%s-scheduling" (include "rl-scaler.fullname" . | trunc 52 | trimSuffix "-") -}}
{{- end -}}

{{/* Not the operator's selector labels, either. */}}
{{- define "rl-scaler.schedulingLabels" -}}
app.kubernetes.io/name: {{ printf "%s-scheduling" (default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: scheduling
{{- end -}}

{{- define "rl-scaler.schedulingImage" -}}
{{- $image := .Values.scheduling.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The rules of the one role there is; every rule says what needs it. */}}
{{- define "rl-scaler.rules" -}}
# The registry of RLScalers is kept by one list and one watch.
- apiGroups: [rlscaler.dev]
  resources: [rlscalers]
  verbs: [get, list, watch]
# Decisions and conditions are written to the status subresource only; specs are the users'.
- apiGroups: [rlscaler.dev]
  resources: [rlscalers/status]
  verbs: [patch]
# Budgets: which groups of RLScalers share a limit.
- apiGroups: [rlscaler.dev]
  resources: [rlscalerbudgets]
  verbs: [list, watch]
# Budgets: who has how much of it, and what is refused, in the status subresource only.
- apiGroups: [rlscaler.dev]
  resources: [rlscalerbudgets/status]
  verbs: [patch]
# Targets: current and ready replicas; watched where they are many.
- apiGroups: [apps]
  resources: [deployments, statefulsets, replicasets]
  verbs: [get, list, watch]
{{- if .Values.rbac.write }}
# Targets: replicas are set through the scale subresource, which cannot change anything else.
- apiGroups: [apps]
  resources: [deployments/scale, statefulsets/scale, replicasets/scale]
  verbs: [patch]
{{- end }}
{{- range .Values.rbac.extraScaleTargets }}
# Other targets (rbac.extraScaleTargets): ready replicas come from the object, the rest from its scale.
- apiGroups: {{ toJson .apiGroups }}
  resources: {{ toJson .resources }}
  verbs: [get]
- apiGroups: {{ toJson .apiGroups }}
  resources:
  {{- range .resources }}
  - {{ printf "%s/scale" . }}
  {{- end }}
  verbs: [get{{ if $.Values.rbac.write }}, patch{{ end }}]
{{- end }}
{{- range .Values.rbac.routes }}
# {{ . }}s: their weights, and those that deleted RLScalers have left behind.
- apiGroups: [{{ get (dict "VirtualService" "networking.istio.io" "TraefikService" "traefik.io" "Ingress" "networking.k8s.io") . | default "gateway.networking.k8s.io" }}]
  resources: [{{ get (dict "Ingress" "ingresses") . | default (printf "%ss" (lower .)) }}]
  verbs: [get, list{{ if $.Values.rbac.write }}, patch{{ end }}]
{{- end }}
# A target that an HPA scales is left alone, and the RLScaler says so.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
# And so is one that KEDA scales, where KEDA is installed.
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list, watch]
{{- if .Values.rbac.configMaps }}
# Policy artifacts in ConfigMaps (spec.policy.artifact.configMap).
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
{{- end }}
{{- if .Values.rbac.secrets.read }}
# Credentials and certificates for Prometheus (spec.metrics.prometheus.auth and .tls).
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.rbac.secrets.names }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
{{- end }}
# Events about RLScalers: a new one, or the count of one that says the same.
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
