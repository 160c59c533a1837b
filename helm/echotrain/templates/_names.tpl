{{/* The name of the RayCluster, and the stem of all other names. */}}
{{- define "echotrain.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name -}}
{{- end -}}
{{- end -}}

{{/* What every object and pod of a release carries; selectors are made of the first two. */}}
{{- define "echotrain.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Of pods: no version, since a changed label is a changed pod, which an upgrade would replace. */}}
{{- define "echotrain.podLabels" -}}
{{ include "echotrain.selectorLabels" . }}
app.kubernetes.io/part-of: echotrain
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "echotrain.labels" -}}
{{ include "echotrain.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "echotrain.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "echotrain.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "echotrain.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Bytes of a quantity such as 8Gi. */}}
{{- define "echotrain.bytes" -}}
{{- $units := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[MGT]i$" . -}}
{{- mul (trimSuffix $unit . | int64) (get $units $unit | int64) -}}
{{- end -}}

{{/* Port of a URL; that of its scheme where it names none. */}}
{{- define "echotrain.port" -}}
{{- $port := regexFind ":[0-9]+(/|$)" . | trimPrefix ":" | trimSuffix "/" -}}
{{- if $port -}}
{{- $port -}}
{{- else if hasPrefix "redis" . -}}
6379
{{- else if hasPrefix "http:" . -}}
80
{{- else -}}
443
{{- end -}}
{{- end -}}

{{/* Namespace of a URL that names a Service of this Kubernetes cluster, else nothing. */}}
{{- define "echotrain.serviceNamespace" -}}
{{- with regexFind "^[a-z]+://[^./:]+\\.[^./:]+\\.svc" . -}}
{{- (splitList "." .) | rest | first -}}
{{- end -}}
{{- end -}}

{{/* What the store of storage.uri is to pods, as JSON: variables of its Secret, of its endpoint and of its authority, and its public address. */}}
{{- define "echotrain.store" -}}
{{- $stores := dict
  "s3" (dict "keys" (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") "endpoint" "AWS_ENDPOINT_URL" "ca" "AWS_CA_BUNDLE" "url" "https://s3.amazonaws.com")
  "gs" (dict "keys" (list "GOOGLE_SERVICE_ACCOUNT_KEY") "endpoint" "GOOGLE_BASE_URL" "ca" "SSL_CERT_FILE" "url" "https://storage.googleapis.com")
  "az" (dict "keys" (list "AZURE_STORAGE_ACCOUNT_NAME" "AZURE_STORAGE_ACCOUNT_KEY") "endpoint" "AZURE_ENDPOINT" "ca" "SSL_CERT_FILE" "url" "https://blob.core.windows.net")
-}}
{{- $scheme := regexFind "^(s3|gs|az)" (.Values.storage.uri | default "") | default "s3" -}}
{{- merge (dict "scheme" $scheme) (get $stores $scheme) | toJson -}}
{{- end -}}

{{/* The Secrets that pods need, as JSON: name to how it is made. */}}
{{- define "echotrain.secrets" -}}
{{- $secrets := dict -}}
{{- with .Values.storage.existingSecret -}}
{{- $literals := list -}}
{{- range (include "echotrain.store" $ | fromJson).keys -}}
{{- $literals = append $literals (printf "--from-literal=%s=…" .) -}}
{{- end -}}
{{- $_ := set $secrets . (join " " $literals) -}}
{{- end -}}
{{- with .Values.wandb.existingSecret -}}
{{- $_ := set $secrets . "--from-literal=WANDB_API_KEY=…" -}}
{{- end -}}
{{- with .Values.deidentification.existingSecret -}}
{{- $_ := set $secrets . "--from-literal=ECHOTRAIN_DEID_SALT=…" -}}
{{- end -}}
{{- if eq .Values.auth.mode "token" -}}
{{- with .Values.auth.existingSecret -}}
{{- $_ := set $secrets . "--from-literal=auth_token=…" -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.gcs.faultTolerance "redis" -}}
{{- with .Values.gcs.redis.existingSecret -}}
{{- $_ := set $secrets . "--from-literal=redis-password=…" -}}
{{- end -}}
{{- end -}}
{{- range .Values.pods.envFromSecrets -}}
{{- $_ := set $secrets . "--from-literal=NAME=…" -}}
{{- end -}}
{{- $secrets | toJson -}}
{{- end -}}
