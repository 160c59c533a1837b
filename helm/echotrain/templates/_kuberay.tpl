{{/*
What the installed KubeRay knows. Helm never upgrades CRDs, and a server that does not know a field drops it without a word (Helm 3) or refuses
the whole release (Helm 4); so each field that some supported version lacks is asked for here first.

echotrain.has (list $ FIELD) is "yes", "no", or "unknown": no cluster to ask, and kuberay.version not set.
*/}}
{{- define "echotrain.kuberayFields" -}}
auth: {since: 1.5.1, kind: rayclusters, path: [authOptions]}
groupLabels: {since: 1.5.1, kind: rayclusters, path: [workerGroupSpecs, items, properties, labels]}
upgradeStrategy: {since: 1.6.0, kind: rayclusters, path: [upgradeStrategy]}
authSecret: {since: 1.6.0, kind: rayclusters, path: [authOptions, properties, secretName]}
preRunningDeadline: {since: 1.6.0, kind: rayjobs, path: [preRunningDeadlineSeconds]}
rocksdb: {since: 1.7.0, kind: rayclusters, path: [gcsFaultToleranceOptions, properties, backend]}
{{- end -}}

{{- define "echotrain.has" -}}
{{- $root := index . 0 -}}
{{- $field := get (include "echotrain.kuberayFields" $root | fromYaml) (index . 1) -}}
{{- if $root.Values.kuberay.version -}}
{{- ternary "yes" "no" (semverCompare (printf ">=%s-0" $field.since) $root.Values.kuberay.version) -}}
{{- else -}}
{{- include "echotrain.readCrd" (list $root $field.kind) -}}
{{- $here := get $root.Values.kuberay $field.kind -}}
{{- if not $here -}}
unknown
{{- else -}}
{{- range $field.path -}}
{{- $here = get ($here | default dict) . -}}
{{- end -}}
{{- ternary "no" "yes" (empty $here) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Keep the fields of a CRD's spec beside kuberay.version, so that a megabyte is fetched once: (list $ KIND). */}}
{{- define "echotrain.readCrd" -}}
{{- $kuberay := (index . 0).Values.kuberay -}}
{{- $kind := index . 1 -}}
{{- if not (hasKey $kuberay $kind) -}}
{{- $_ := set $kuberay $kind dict -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" (printf "%s.ray.io" $kind) -}}
{{- range .spec.versions -}}
{{- if eq .name "v1" -}}
{{- $_ := set $kuberay $kind .schema.openAPIV3Schema.properties.spec.properties -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuse a setting that the installed KubeRay does not know: (list $ FIELD SETTING REMEDY). */}}
{{- define "echotrain.need" -}}
{{- $root := index . 0 -}}
{{- if eq (include "echotrain.has" (list $root (index . 1))) "no" -}}
{{- $field := get (include "echotrain.kuberayFields" $root | fromYaml) (index . 1) -}}
{{- printf "\n\n%s: the installed KubeRay CRDs do not know it, they are older than %s. Upgrade them first, by hand since Helm never does (UPGRADING in the chart's README), %s\n" (index . 2) $field.since (index . 3) | fail -}}
{{- end -}}
{{- end -}}

{{/* The RayCluster as it stands, or nothing. */}}
{{- define "echotrain.live" -}}
{{- lookup "ray.io/v1" "RayCluster" .Release.Namespace (include "echotrain.fullname" .) | toJson -}}
{{- end -}}

{{/* Whether a cluster answers: every namespace has this ServiceAccount. `helm template` and GitOps have none to ask. */}}
{{- define "echotrain.isLive" -}}
{{- if lookup "v1" "ServiceAccount" .Release.Namespace "default" -}}yes{{- end -}}
{{- end -}}
