{{/* Everything that is refused before anything is made. The schema has checked names and types by now. */}}
{{- define "echotrain.check" -}}
{{- include "echotrain.checkNames" . -}}
{{- include "echotrain.checkSecrets" . -}}
{{- include "echotrain.checkStorage" . -}}
{{- if hasKey .Values.training "data" -}}
{{- fail "\n\ntraining.data: the name is taken by the group of `data`. Rename the training group.\n" -}}
{{- end -}}
{{- range $name, $group := .Values.training -}}
{{- include "echotrain.checkGroup" (list (printf "training.%s" $name) $name $group) -}}
{{- end -}}
{{- include "echotrain.checkGroup" (list "data" "data" .Values.data) -}}
{{- include "echotrain.checkShm" (list "head" .Values.head) -}}
{{- include "echotrain.checkKubeRay" . -}}
{{- include "echotrain.checkQueues" . -}}
{{- include "echotrain.checkMonitoring" . -}}
{{- end -}}

{{- define "echotrain.checkNames" -}}
{{- range $path, $labels := dict "commonLabels" .Values.commonLabels "pods.labels" .Values.pods.labels -}}
{{- range $label, $_ := $labels -}}
{{- if regexMatch "^(app\\.kubernetes\\.io|ray\\.io|helm\\.sh|kueue\\.x-k8s\\.io)/" $label -}}
{{- printf "\n\n%s.%s: is the chart's or KubeRay's, whose Services and policies find pods by it. Use a label of your own, such as example.org/team.\n" $path $label | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $name := include "echotrain.fullname" . -}}
{{- if gt (len $name) 50 -}}
{{- printf "\n\n%s: the name has %d characters, and KubeRay takes 50 (53, but it names the token's Secret by 50). Shorten the release's name or set fullnameOverride.\n" $name (len $name) | fail -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- printf "\n\n%s: KubeRay takes names of lower-case letters, digits and dashes that begin with a letter. Rename the release or set fullnameOverride.\n" $name | fail -}}
{{- end -}}
{{- end -}}

{{- define "echotrain.checkSecrets" -}}
{{- $literals := dict
  "auth.token" (dict "given" .Values.auth.token "remedy" "--from-literal=auth_token=…, and set auth.existingSecret")
  "storage.accessKeyId" (dict "given" .Values.storage.accessKeyId "remedy" "--from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…, and set storage.existingSecret")
  "storage.secretAccessKey" (dict "given" .Values.storage.secretAccessKey "remedy" "--from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…, and set storage.existingSecret")
  "wandb.apiKey" (dict "given" .Values.wandb.apiKey "remedy" "--from-literal=WANDB_API_KEY=…, and set wandb.existingSecret")
  "deidentification.salt" (dict "given" .Values.deidentification.salt "remedy" "--from-literal=ECHOTRAIN_DEID_SALT=…, and set deidentification.existingSecret")
  "gcs.redis.password" (dict "given" .Values.gcs.redis.password "remedy" "--from-literal=redis-password=…, and set gcs.redis.existingSecret")
-}}
{{- range $path, $literal := $literals -}}
{{- if $literal.given -}}
{{- printf "\n\n%s: a secret must not stand in values, which Helm stores and git remembers. Make it with kubectl create secret generic NAME %s.\n" $path $literal.remedy | fail -}}
{{- end -}}
{{- end -}}
{{- $environments := dict "pods" .Values.pods.env "data" .Values.data.env -}}
{{- range $name, $group := .Values.training -}}
{{- $_ := set $environments (printf "training.%s" $name) $group.env -}}
{{- end -}}
{{- range $path, $env := $environments -}}
{{- range $name, $value := $env -}}
{{- if regexMatch "(?i)(SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL|SALT)" $name -}}
{{- printf "\n\n%s.env.%s: looks like a secret, which must not stand in values. Put it into a Secret and name that in pods.envFromSecrets.\n" $path $name | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $path, $url := dict "storage.endpoint" .Values.storage.endpoint "gcs.redis.address" .Values.gcs.redis.address "wandb.url" .Values.wandb.url -}}
{{- if regexMatch "://[^/]*@" $url -}}
{{- printf "\n\n%s: has a user or password in it, which must not stand in values. Give the plain address, and the password by a Secret (existingSecret).\n" $path | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "echotrain.checkStorage" -}}
{{- if not .Values.storage.uri -}}
{{- fail "\n\nstorage.uri: is empty, and runs and catalogs must be kept somewhere. Set storage.uri=s3://bucket/prefix.\n" -}}
{{- end -}}
{{- if not (regexMatch "^(s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]|gs://[a-z0-9][-._a-z0-9]{1,220}[a-z0-9]|az://[a-z0-9][-a-z0-9]{1,61}[a-z0-9])(/.*)?$" .Values.storage.uri) -}}
{{- printf "\n\nstorage.uri=%s: pods share no disk, so it must be s3://bucket/prefix, gs://bucket/prefix or az://container/prefix. Set storage.endpoint as well where S3 is not AWS.\n" .Values.storage.uri | fail -}}
{{- end -}}
{{- if and (not (hasPrefix "s3://" .Values.storage.uri)) (eq .Values.storage.endpoint "http://s3.echotrain.svc.cluster.local:9000") -}}
{{- printf "\n\nstorage.endpoint=%s: is an S3 server, and storage.uri=%s is not in one. Set storage.endpoint=\"\" for the store's own address.\n" .Values.storage.endpoint .Values.storage.uri | fail -}}
{{- end -}}
{{- end -}}

{{/* (list PATH NAME GROUP) */}}
{{- define "echotrain.checkGroup" -}}
{{- $path := index . 0 -}}
{{- $name := index . 1 -}}
{{- $group := index . 2 -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$" $name) -}}
{{- printf "\n\n%s: names of groups have at most 30 lower-case letters, digits and dashes, and begin with a letter. Rename the group.\n" $path | fail -}}
{{- end -}}
{{- $gpus := $group.gpus | default 0 | int -}}
{{- $resource := $group.gpuResource | default "nvidia.com/gpu" -}}
{{- $tolerates := false -}}
{{- range $group.tolerations -}}
{{- if or (eq (.key | default "") $resource) (and (not .key) (eq (.operator | default "") "Exists")) -}}
{{- $tolerates = true -}}
{{- end -}}
{{- end -}}
{{- if and $gpus (not $tolerates) -}}
{{- printf "\n\n%s: asks for GPUs and does not tolerate the taint %s, which keeps everything else off GPU nodes. Set %s.tolerations=[{key: %s, operator: Exists, effect: NoSchedule}]; it does no harm where nodes are not tainted.\n" $path $resource $path $resource | fail -}}
{{- end -}}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) -}}
{{- printf "\n\n%s.minReplicas=%d: is more than maxReplicas=%d. Raise maxReplicas or lower minReplicas.\n" $path (int $group.minReplicas) (int $group.maxReplicas) | fail -}}
{{- end -}}
{{- include "echotrain.checkShm" (list $path $group) -}}
{{- end -}}

{{- define "echotrain.checkShm" -}}
{{- $path := index . 0 -}}
{{- $pod := index . 1 -}}
{{- if ge (include "echotrain.bytes" $pod.shm | int64) (include "echotrain.bytes" $pod.memory | int64) -}}
{{- printf "\n\n%s.shm=%s: shared memory counts as memory, and %s.memory=%s leaves nothing beside it. Lower shm or raise memory.\n" $path $pod.shm $path $pod.memory | fail -}}
{{- end -}}
{{- end -}}

{{- define "echotrain.checkKubeRay" -}}
{{- if and (include "echotrain.isLive" .) (not (.Capabilities.APIVersions.Has "ray.io/v1/RayCluster")) -}}
{{- fail "\n\nKubeRay: this cluster has no RayClusters. Install the KubeRay operator first (k8s/README.md).\n" -}}
{{- end -}}
{{- if eq .Values.auth.mode "token" -}}
{{- include "echotrain.need" (list . "auth" "auth.mode=token" "or set auth.mode=disabled, knowing that whoever reaches a Ray pod then runs code in it.") -}}
{{- if .Values.auth.existingSecret -}}
{{- include "echotrain.need" (list . "authSecret" "auth.existingSecret" "or leave it empty, and KubeRay makes a token.") -}}
{{- end -}}
{{- if semverCompare "<2.52.0-0" .Values.ray.version -}}
{{- printf "\n\nray.version=%s: token authentication needs Ray 2.52. Use a newer image, or set auth.mode=disabled.\n" .Values.ray.version | fail -}}
{{- end -}}
{{- end -}}
{{- if and .Values.cluster.enabled (eq .Values.cluster.upgradeStrategy "Recreate") -}}
{{- include "echotrain.need" (list . "upgradeStrategy" "cluster.upgradeStrategy=Recreate" "or set cluster.upgradeStrategy=None and delete pods yourself after an upgrade.") -}}
{{- end -}}
{{- if gt (int .Values.jobs.preRunningDeadlineSeconds) 0 -}}
{{- include "echotrain.need" (list . "preRunningDeadline" "jobs.preRunningDeadlineSeconds" "or set jobs.preRunningDeadlineSeconds=0.") -}}
{{- end -}}
{{- if eq .Values.gcs.faultTolerance "rocksdb" -}}
{{- include "echotrain.need" (list . "rocksdb" "gcs.faultTolerance=rocksdb" "or use redis.") -}}
{{- end -}}
{{- if and (eq .Values.gcs.faultTolerance "redis") (not .Values.gcs.redis.address) -}}
{{- fail "\n\ngcs.redis.address: is empty while gcs.faultTolerance=redis. Set gcs.redis.address=redis://HOST:6379.\n" -}}
{{- end -}}
{{- end -}}

{{/* A job that names a queue which does not exist waits for ever. */}}
{{- define "echotrain.checkQueues" -}}
{{- $kueue := .Values.kueue -}}
{{- if and (not $kueue.queue) (or $kueue.queues $kueue.clusterQueue) -}}
{{- fail "\n\nkueue.queue: is empty while kueue.queues or kueue.clusterQueue is set. Name the queue that jobs wait in.\n" -}}
{{- end -}}
{{- if and $kueue.queue (include "echotrain.isLive" .) -}}
{{- if not (.Capabilities.APIVersions.Has "kueue.x-k8s.io/v1beta2/LocalQueue") -}}
{{- printf "\n\nkueue.queue=%s: this cluster has no Kueue (or one older than 0.14). Install it (k8s/README.md), or leave kueue.queue empty.\n" $kueue.queue | fail -}}
{{- end -}}
{{- $queues := $kueue.queues -}}
{{- if not $kueue.clusterQueue -}}
{{- $queues = prepend $queues $kueue.queue -}}
{{- else if not (lookup "kueue.x-k8s.io/v1beta2" "ClusterQueue" "" $kueue.clusterQueue) -}}
{{- printf "\n\nkueue.clusterQueue=%s: there is no such ClusterQueue. Apply the ground first (kubectl apply -k k8s/overlays/…), or name one of kubectl get clusterqueues.\n" $kueue.clusterQueue | fail -}}
{{- end -}}
{{- range $queues -}}
{{- if not (lookup "kueue.x-k8s.io/v1beta2" "LocalQueue" $.Release.Namespace .) -}}
{{- printf "\n\nkueue.queue=%s: there is no such LocalQueue in namespace %s. Set kueue.clusterQueue to have the chart make it, or name one of kubectl get localqueues.\n" . $.Release.Namespace | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.priorities.default (not (has .Values.priorities.default .Values.priorities.offered)) -}}
{{- printf "\n\npriorities.default=%s: is not among priorities.offered. Add it there.\n" .Values.priorities.default | fail -}}
{{- end -}}
{{- end -}}

{{- define "echotrain.checkMonitoring" -}}
{{- if include "echotrain.isLive" . -}}
{{- range $setting, $kind := dict "podMonitor" "PodMonitor" "alerts" "PrometheusRule" -}}
{{- if and (get $.Values.monitoring $setting) (not ($.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" $kind))) -}}
{{- printf "\n\nmonitoring.%s: this cluster has no Prometheus operator. Install it (k8s/README.md), or set monitoring.%s=false.\n" $setting $setting | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
