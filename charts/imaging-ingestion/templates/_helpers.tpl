{{- define "imaging.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "imaging.operator" -}}
{{- include "imaging.fullname" . }}-operator
{{- end -}}

{{- define "imaging.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "imaging.operator" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which pods are selected: (dict "root" $ "component" "operator") */}}
{{- define "imaging.selector" -}}
app.kubernetes.io/name: imaging-ingestion
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "imaging.labels" -}}
{{ include "imaging.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | quote }}
{{- end -}}

{{/* A reference: (dict "root" $ "image" .Values.image) */}}
{{- define "imaging.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "imaging.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "imaging.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A Service of this release by its full name: (dict "root" $ "name" "nats") */}}
{{- define "imaging.host" -}}
{{ include "imaging.fullname" .root }}-{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end -}}

{{- define "imaging.natsUrl" -}}
{{- if .Values.nats.url -}}
{{ .Values.nats.url }}
{{- else if .Values.nats.enabled -}}
nats://{{ include "imaging.host" (dict "root" . "name" "nats") }}:4222
{{- end -}}
{{- end -}}

{{/* A value of a Secret: what is given, else what the cluster has, else a new one.
(dict "root" $ "given" "" "secret" "name" "key" "DB_PASS" "length" 32) */}}
{{- define "imaging.credential" -}}
{{- $existing := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $data := ($existing | default dict).data | default dict -}}
{{- if .given -}}
{{ .given }}
{{- else if hasKey $data .key -}}
{{ index $data .key | b64dec }}
{{- else -}}
{{ randAlphaNum (int .length) }}
{{- end -}}
{{- end -}}
