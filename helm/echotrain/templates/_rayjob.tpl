{{/* A RayJob without name, entrypoint and number of workers, which the launcher writes. */}}
{{- define "echotrain.rayJob" -}}
{{- $jobs := .Values.jobs -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  namespace: {{ .Release.Namespace }}
  # Not Helm's: who launches it owns it.
  labels:
    {{- include "echotrain.podLabels" . | nindent 4 }}
    app.kubernetes.io/component: job
    {{- with .Values.kueue.queue }}
    kueue.x-k8s.io/queue-name: {{ . }}
    {{- with $.Values.priorities.default }}
    kueue.x-k8s.io/priority-class: {{ . }}
    {{- end }}
    {{- end }}
spec:
  submissionMode: K8sJobMode
  # The cluster ends with the job; the job itself, and the submitter's log, stay until somebody deletes them (launch prune). KubeRay counts
  # this time to the end of the cluster, not of the job, and Kueue gives its quota to others meanwhile.
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 0
  activeDeadlineSeconds: {{ int64 $jobs.activeDeadlineSeconds }}
  {{- with int64 $jobs.preRunningDeadlineSeconds }}
  preRunningDeadlineSeconds: {{ . }}
  {{- end }}
  backoffLimit: {{ int $jobs.backoffLimit }}
  rayClusterSpec:
    {{- include "echotrain.clusterSpec" (dict "root" . "mode" "job") | nindent 4 }}
  submitterPodTemplate:
    {{- include "echotrain.podTemplate" (dict "root" . "component" "submitter" "pod" (dict "cpu" "200m" "memory" "512Mi" "tmpSize" "512Mi") "mode" "job") | nindent 4 }}
{{- end -}}

{{/* What a launcher must know of the platform before it makes a job. */}}
{{- define "echotrain.platform" -}}
{{- $groups := dict -}}
{{- range $name, $group := merge (dict "data" .Values.data) .Values.training -}}
{{- $_ := set $groups $name (dict "cpus" (int $group.cpu) "gpus" (int ($group.gpus | default 0)) "max" (int $group.maxReplicas)) -}}
{{- end -}}
{{- $queues := .Values.kueue.queues -}}
{{- with .Values.kueue.queue -}}
{{- $queues = prepend $queues . | uniq -}}
{{- end -}}
{{- dict
  "format" 1
  "chart" .Chart.Version
  "echotrain" .Chart.AppVersion
  "ray" .Values.ray.version
  "release" .Release.Name
  "storage" .Values.storage.uri
  "groups" $groups
  "queue" .Values.kueue.queue
  "queues" $queues
  "priority" .Values.priorities.default
  "priorities" .Values.priorities.offered
  "wandb" (dict "enabled" (not (empty .Values.wandb.existingSecret)) "url" .Values.wandb.url)
  "dashboard" .Values.jobs.dashboardUrl
| toPrettyJson -}}
{{- end -}}
