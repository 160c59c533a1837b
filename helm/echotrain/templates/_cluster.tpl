{{/*
The spec of a RayCluster: dict "root" $ "mode" (cluster | job). The standing cluster grows and shrinks by itself; a job's cluster has the size
that the launcher writes into it, since its ranks start together or not at all.
*/}}
{{- define "echotrain.clusterSpec" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $mode := .mode -}}
{{- $isAutoscaled := and (eq $mode "cluster") $values.autoscaler.enabled -}}
rayVersion: {{ $values.ray.version | quote }}
{{- if eq (include "echotrain.has" (list $root "auth")) "yes" }}
authOptions:
  mode: {{ $values.auth.mode }}
  {{- with $values.auth.existingSecret }}
  secretName: {{ . }}
  {{- end }}
{{- end }}
enableInTreeAutoscaling: {{ $isAutoscaled }}
{{- if $isAutoscaled }}
autoscalerOptions:
  version: v2
  upscalingMode: {{ $values.autoscaler.upscalingMode }}
  idleTimeoutSeconds: {{ $values.autoscaler.idleTimeoutSeconds }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  securityContext:
    {{- include "echotrain.containerSecurity" $root | nindent 4 }}
  resources:
    requests: {cpu: {{ $values.autoscaler.cpu | quote }}, memory: {{ $values.autoscaler.memory | quote }}}
    limits: {memory: {{ $values.autoscaler.memory | quote }}}
  {{- with include "echotrain.authEnv" $root }}
  env:
    {{- . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: api-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}
{{- if eq $mode "cluster" }}
{{- include "echotrain.gcsOptions" $root }}
{{- if eq $values.cluster.upgradeStrategy "Recreate" }}
upgradeStrategy:
  type: Recreate
{{- end }}
{{- if $values.cluster.suspend }}
suspend: true
{{- end }}
{{- end }}
headGroupSpec:
  rayStartParams:
    {{- include "echotrain.rayStartParams" $values.head | nindent 4 }}
    dashboard-host: 0.0.0.0
    # No task of a job lands beside the drivers.
    num-cpus: "0"
  template:
    {{- include "echotrain.podTemplate" (dict "root" $root "component" "head" "pod" $values.head "mode" $mode) | nindent 4 }}
workerGroupSpecs:
  {{- $groups := merge (dict "data" $values.data) $values.training }}
  {{- range $name := keys $groups | sortAlpha }}
  {{- $group := get $groups $name }}
  - groupName: {{ $name }}
    {{- if eq (include "echotrain.has" (list $root "groupLabels")) "yes" }}
    # Ray's own label of these nodes, which its autoscaler does not know of by itself: it makes a pod for work that asks for a group only
    # where it is told that the pod will have it.
    labels:
      ray.io/node-group: {{ $name }}
    {{- end }}
    {{- include "echotrain.replicas" (dict "root" $root "mode" $mode "name" $name "group" $group) | trim | nindent 4 }}
    {{- if $isAutoscaled }}
    {{- with $group.idleTimeoutSeconds }}
    idleTimeoutSeconds: {{ . }}
    {{- end }}
    {{- end }}
    rayStartParams:
      {{- include "echotrain.rayStartParams" $group | nindent 6 }}
      num-cpus: {{ $group.cpu | quote }}
    template:
      {{- include "echotrain.podTemplate" (dict "root" $root "component" "worker" "pod" $group "mode" $mode) | nindent 6 }}
  {{- end }}
{{- end -}}

{{/* The object store gets nine tenths of the shared memory: Ray goes to the disk where it is promised all of it. */}}
{{- define "echotrain.rayStartParams" -}}
metrics-export-port: "8080"
object-spilling-directory: /spill
object-store-memory: {{ div (mul 9 (include "echotrain.bytes" .shm | int64)) 10 | quote }}
{{- end -}}

{{/*
How many pods: the autoscaler's own number where the cluster stands, since Helm replaces the whole list of groups and would put back its own
(Helm 4 is refused; see UPGRADING). Pods that the autoscaler has marked for deletion stay marked.
*/}}
{{- define "echotrain.replicas" -}}
{{- if eq .mode "job" }}
{{- $pods := ternary (int .root.Values.jobs.dataReplicas) 0 (eq .name "data") }}
replicas: {{ $pods }}
minReplicas: {{ $pods }}
maxReplicas: {{ $pods }}
{{- else }}
{{- $replicas := int .group.minReplicas }}
{{- $marked := list }}
{{- if .root.Values.autoscaler.enabled }}
{{- $live := include "echotrain.live" .root | fromJson }}
{{- range ($live.spec | default dict).workerGroupSpecs }}
{{- if eq .groupName $.name }}
{{- $replicas = min (max (int .replicas) (int $.group.minReplicas)) (int $.group.maxReplicas) }}
{{- $marked = (.scaleStrategy | default dict).workersToDelete | default list }}
{{- end }}
{{- end }}
{{- end }}
replicas: {{ $replicas }}
minReplicas: {{ int .group.minReplicas }}
maxReplicas: {{ int .group.maxReplicas }}
{{- with $marked }}
scaleStrategy:
  workersToDelete:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
What jobs are told of the groups, which Ray's autoscaler keeps to itself: dict "root" $ "mode" (cluster | job). A job's own groups have the
number of pods that the launcher writes, here too.
*/}}
{{- define "echotrain.workerGroups" -}}
{{- $root := .root -}}
{{- $mode := .mode -}}
{{- $groups := dict -}}
{{- range $name, $group := merge (dict "data" $root.Values.data) $root.Values.training -}}
{{- $pods := include "echotrain.replicas" (dict "root" $root "mode" $mode "name" $name "group" $group) | fromYaml -}}
{{- $max := ternary $pods.maxReplicas $pods.minReplicas (or (eq $mode "job") $root.Values.autoscaler.enabled) -}}
{{- $size := dict "cpus" (int $group.cpu) "gpus" (int ($group.gpus | default 0)) "memory" (include "echotrain.bytes" $group.memory | int64) -}}
{{- $_ := set $groups $name (merge $size (dict "min" (int $pods.minReplicas) "max" (int $max))) -}}
{{- end -}}
{{- dict "format" 1 "nodeTimeoutSeconds" (int $root.Values.autoscaler.nodeTimeoutSeconds) "groups" $groups | toJson -}}
{{- end -}}

{{- define "echotrain.gcsOptions" -}}
{{- $gcs := .Values.gcs -}}
{{- if eq $gcs.faultTolerance "redis" }}
gcsFaultToleranceOptions:
  redisAddress: {{ $gcs.redis.address | quote }}
  {{- with $gcs.redis.username }}
  redisUsername:
    value: {{ . | quote }}
  {{- end }}
  {{- with $gcs.redis.existingSecret }}
  redisPassword:
    valueFrom:
      secretKeyRef: {name: {{ . }}, key: redis-password}
  {{- end }}
{{- else if eq $gcs.faultTolerance "rocksdb" }}
gcsFaultToleranceOptions:
  backend: rocksdb
  storage:
    size: {{ $gcs.rocksdb.size }}
    {{- with $gcs.rocksdb.storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* A checksum of what KubeRay replaces pods for: not their number, and not tolerations, which Kueue may add. */}}
{{- define "echotrain.podsChecksum" -}}
{{- $spec := include "echotrain.clusterSpec" (dict "root" . "mode" "cluster") | fromYaml -}}
{{- $_ := unset $spec.headGroupSpec.template.spec "tolerations" -}}
{{- range $spec.workerGroupSpecs -}}
{{- $_ := unset .template.spec "tolerations" -}}
{{- $_ := unset (unset (unset (unset . "replicas") "minReplicas") "maxReplicas") "scaleStrategy" -}}
{{- end -}}
{{- omit $spec "upgradeStrategy" "suspend" | toJson | sha256sum | trunc 16 -}}
{{- end -}}
