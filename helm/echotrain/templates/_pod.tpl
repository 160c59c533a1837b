{{/*
Pods, written once for the head, the workers and the submitter of jobs. Each helper takes
  dict "root" $ "component" (head | worker | submitter) "pod" SETTINGS "mode" (cluster | job)
where SETTINGS are those of `head`, `data` or a training group.
*/}}

{{- define "echotrain.podTemplate" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $pod := .pod -}}
metadata:
  labels:
    {{- include "echotrain.podLabels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
    {{- with $values.pods.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $own := dict }}
  {{- if and (eq .mode "job") (ne .component "submitter") }}
  {{- $_ := set $own "echotrain.io/worker-groups" (include "echotrain.workerGroups" .) }}
  {{- end }}
  {{- with merge dict $own ($pod.podAnnotations | default dict) $values.pods.annotations (ternary $values.jobs.podAnnotations dict (eq .mode "job")) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "echotrain.serviceAccountName" $root }}
  # Only the autoscaler speaks with the Kubernetes API, and has a token mounted of its own.
  automountServiceAccountToken: false
  enableServiceLinks: false
  # KubeRay replaces pods; one that restarts in place would be a node that Ray has counted as dead.
  restartPolicy: Never
  terminationGracePeriodSeconds: {{ $values.pods.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ $values.pods.userId }}
    runAsGroup: {{ $values.pods.userId }}
    fsGroup: {{ $values.pods.userId }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- $priority := $pod.priorityClassName | default $values.pods.priorityClassName }}
  {{- if and (eq .mode "job") (not $values.kueue.queue) $values.priorities.default }}
  {{- $priority = $values.priorities.default }}
  {{- end }}
  {{- with $priority }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $pod.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with merge dict ($pod.nodeSelector | default dict) $values.pods.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with concat ($pod.tolerations | default list) $values.pods.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "echotrain.container" . | indent 6 | trim }}
  volumes:
    {{- include "echotrain.volumes" . | nindent 4 }}
{{- end -}}

{{- define "echotrain.container" -}}
{{- $root := .root -}}
{{- $pod := .pod -}}
name: {{ get (dict "head" "ray-head" "worker" "ray-worker" "submitter" "ray-job-submitter") .component }}
image: {{ include "echotrain.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  {{- include "echotrain.containerSecurity" $root | nindent 2 }}
resources:
  # Memory is requested as it is limited, so that a node is never promised more than it has; CPUs are not limited, since a throttled
  # process would hold up all ranks.
  requests:
    cpu: {{ $pod.cpu | quote }}
    memory: {{ $pod.memory | quote }}
    {{- include "echotrain.extendedResources" . | trim | nindent 4 }}
  limits:
    memory: {{ $pod.memory | quote }}
    {{- include "echotrain.extendedResources" . | trim | nindent 4 }}
{{- if ne .component "submitter" }}
ports:
  {{- if eq .component "head" }}
  - {name: gcs-server, containerPort: 6379}
  - {name: dashboard, containerPort: 8265}
  - {name: client, containerPort: 10001}
  - {name: as-metrics, containerPort: 44217}
  - {name: dash-metrics, containerPort: 44227}
  {{- end }}
  - {name: metrics, containerPort: 8080}
{{- end }}
env:
  {{- include "echotrain.env" . | nindent 2 }}
{{- with $root.Values.pods.envFromSecrets }}
envFrom:
  {{- range . }}
  - secretRef: {name: {{ . }}}
  {{- end }}
{{- end }}
volumeMounts:
  {{- include "echotrain.volumeMounts" . | nindent 2 }}
{{- end -}}

{{- define "echotrain.containerSecurity" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "echotrain.extendedResources" -}}
{{- $root := .root -}}
{{- $pod := .pod -}}
{{- with $pod.gpus }}
{{ $pod.gpuResource | default "nvidia.com/gpu" }}: {{ . | quote }}
{{- end }}
{{- range $name, $amount := $pod.resources }}
{{ $name }}: {{ $amount | quote }}
{{- end }}
{{- /* What lies on the node's own disk: a pod that takes more is evicted. The home and the logs of containers are one gibibyte each. */}}
{{- $disk := add (mul 2 1073741824) (include "echotrain.bytes" ($pod.tmpSize | default $root.Values.pods.tmpSize) | int64) }}
{{- with $pod.spill }}
{{- if not .storageClassName }}
{{- $disk = add $disk (include "echotrain.bytes" .size | int64) }}
{{- end }}
{{- end }}
ephemeral-storage: {{ div $disk 1048576 }}Mi
{{- end -}}

{{/* Where it is not known which KubeRay is installed, authentication is not left to it: without this Secret no pod starts. */}}
{{- define "echotrain.authEnv" -}}
{{- if and (eq .Values.auth.mode "token") (eq (include "echotrain.has" (list . "auth")) "unknown") }}
- {name: RAY_AUTH_MODE, value: token}
- name: RAY_AUTH_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .Values.auth.existingSecret | default (include "echotrain.fullname" .) }}
      key: auth_token
{{- end }}
{{- end -}}

{{/* The submitter only hands over a command; the pods of Ray do the work, and have what it needs. */}}
{{- define "echotrain.env" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
- {name: HOME, value: /home/echotrain}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- include "echotrain.authEnv" $root }}
{{- if ne .component "submitter" }}
# Ray's own waits between SIGTERM and SIGKILL, of a job that is stopped and of a node that leaves; by default 3 and 30 s.
{{- $grace := sub (int $values.pods.terminationGracePeriodSeconds) 20 }}
- {name: RAY_JOB_STOP_WAIT_TIME_S, value: {{ $grace | quote }}}
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ $grace | quote }}}
- {name: ECHOTRAIN_WORKER_GROUPS, value: /etc/echotrain/groups/groups.json}
{{- if eq .component "head" }}
# How often the head asks a node whether it lives; after five times it is lost. By default 3 s, so that a lost node costs 15 s.
- {name: RAY_health_check_period_ms, value: "1000"}
{{- end }}
# A job says itself that it waits for nodes.
- {name: RAY_SCHEDULER_EVENTS, value: "0"}
- {name: MPLCONFIGDIR, value: /tmp/matplotlib}
{{- $store := include "echotrain.store" $root | fromJson }}
{{- if eq $store.scheme "s3" }}
- {name: AWS_REGION, value: {{ $values.storage.region | quote }}}
{{- end }}
{{- with $values.storage.endpoint }}
- {name: {{ $store.endpoint }}, value: {{ . | quote }}}
{{- end }}
{{- with $values.storage.existingSecret }}
{{- range $store.keys }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $values.storage.existingSecret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- if $values.storage.caConfigMap }}
{{- $authorities := list $store.ca }}
{{- if $values.wandb.url }}
{{- $authorities = concat $authorities (list "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE") | uniq }}
{{- end }}
{{- range $authorities }}
- {name: {{ . }}, value: /etc/echotrain/ca/ca.crt}
{{- end }}
{{- end }}
{{- with $values.wandb.existingSecret }}
- name: WANDB_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: WANDB_API_KEY}
{{- end }}
{{- with $values.wandb.url }}
- {name: WANDB_BASE_URL, value: {{ . | quote }}}
{{- end }}
{{- with $values.deidentification.existingSecret }}
- name: ECHOTRAIN_DEID_SALT
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: ECHOTRAIN_DEID_SALT}
{{- end }}
{{- range $name, $value := merge dict (.pod.env | default dict) $values.pods.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "echotrain.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/echotrain}
{{- if ne .component "submitter" }}
- {name: shared-memory, mountPath: /dev/shm}
- {name: spill, mountPath: /spill}
- {name: worker-groups, mountPath: /etc/echotrain/groups, readOnly: true}
{{- if .root.Values.storage.caConfigMap }}
- {name: storage-ca, mountPath: /etc/echotrain/ca, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "echotrain.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .pod.tmpSize | default .root.Values.pods.tmpSize }}
- name: home
  emptyDir:
    sizeLimit: 1Gi
{{- if ne .component "submitter" }}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .pod.shm }}
- name: spill
  {{- if .pod.spill.storageClassName }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {{ .pod.spill.storageClassName }}
        resources:
          requests:
            storage: {{ .pod.spill.size }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .pod.spill.size }}
  {{- end }}
- name: worker-groups
  {{- if eq .mode "job" }}
  downwardAPI:
    items:
      - path: groups.json
        fieldRef: {fieldPath: "metadata.annotations['echotrain.io/worker-groups']"}
  {{- else }}
  # No annotation of the pod: KubeRay would replace all pods when a group may have one more of them.
  configMap:
    name: {{ include "echotrain.fullname" .root }}-groups
  {{- end }}
{{- if and (eq .component "head") (eq .mode "cluster") .root.Values.autoscaler.enabled }}
# What a mounted ServiceAccount is made of.
- name: api-token
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
{{- if .root.Values.storage.caConfigMap }}
- name: storage-ca
  configMap:
    name: {{ .root.Values.storage.caConfigMap }}
{{- end }}
{{- end }}
{{- end -}}
