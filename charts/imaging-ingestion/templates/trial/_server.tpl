{{/* Service and StatefulSet of a trial server.
(dict "root" $ "name" "nats" "backend" "nats" "values" .Values.nats "port" 4222 "monitoring" 8222 "leafNodes" 7422
"env" (list) "envFrom" (list)) */}}
{{- define "imaging.trialServer" -}}
{{- $full := printf "%s-%s" (include "imaging.fullname" .root) .name }}
{{- $trial := .root.Values.trial }}
apiVersion: v1
kind: Service
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "imaging.labels" (dict "root" .root "component" .name) | nindent 4 }}
  {{- with (.values.service | default dict).annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ (.values.service | default dict).type | default "ClusterIP" }}
  selector:
    {{- include "imaging.selector" (dict "root" .root "component" .name) | nindent 4 }}
  ports:
    - {name: tcp-{{ .backend }}, port: {{ .port }}, targetPort: server, protocol: TCP}
    {{- with .monitoring }}
    - {name: http-monitoring, port: {{ . }}, targetPort: monitoring, protocol: TCP}
    {{- end }}
    {{- with .leafNodes }}
    - {name: tcp-leaf-nodes, port: {{ . }}, targetPort: leaf-nodes, protocol: TCP}
    {{- end }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "imaging.labels" (dict "root" .root "component" .name) | nindent 4 }}
spec:
  serviceName: {{ $full }}
  replicas: 1
  {{- if .values.persistence.enabled }}
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: {{ ternary "Retain" "Delete" $trial.keepData }}
    whenScaled: Retain
  {{- end }}
  selector:
    matchLabels:
      {{- include "imaging.selector" (dict "root" .root "component" .name) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "imaging.selector" (dict "root" .root "component" .name) | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 45
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "imaging.podSecurity" .root | nindent 8 }}
        fsGroup: 10001
        fsGroupChangePolicy: OnRootMismatch
      containers:
        - name: {{ .backend }}
          image: {{ include "imaging.image" (dict "root" .root "image" $trial.image) | quote }}
          imagePullPolicy: {{ $trial.image.pullPolicy }}
          args: [backend, {{ .backend }}]
          {{- with .env }}
          env:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .envFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: server, containerPort: {{ .port }}, protocol: TCP}
            - {name: health, containerPort: 9090, protocol: TCP}
            {{- with .monitoring }}
            - {name: monitoring, containerPort: {{ . }}, protocol: TCP}
            {{- end }}
            {{- with .leafNodes }}
            - {name: leaf-nodes, containerPort: {{ . }}, protocol: TCP}
            {{- end }}
          startupProbe:
            httpGet: {path: /readyz, port: health}
            periodSeconds: 2
            failureThreshold: 90
          readinessProbe:
            httpGet: {path: /readyz, port: health}
            periodSeconds: 5
            timeoutSeconds: 5
          livenessProbe:
            httpGet: {path: /healthz, port: health}
            periodSeconds: 10
            timeoutSeconds: 5
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- include "imaging.containerSecurity" .root | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: tmp, mountPath: /tmp}
      {{- with $trial.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $trial.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 256Mi}}
        {{- if not .values.persistence.enabled }}
        - {name: data, emptyDir: {sizeLimit: {{ .values.persistence.size }}}}
        {{- end }}
  {{- if .values.persistence.enabled }}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "imaging.selector" (dict "root" .root "component" .name) | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: {{ .values.persistence.size }}}}
        {{- with .values.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
  {{- end }}
{{- end -}}

{{/* A ConfigMap and a Secret of the same name: (dict "root" $ "name" "database" "component" "postgresql" "config" (dict) "secret" (dict)) */}}
{{- define "imaging.trialAccess" -}}
{{- $full := printf "%s-%s" (include "imaging.fullname" .root) .name }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "imaging.labels" (dict "root" .root "component" .component) | nindent 4 }}
data:
  {{- toYaml .config | nindent 2 }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "imaging.labels" (dict "root" .root "component" .component) | nindent 4 }}
  {{- if .root.Values.trial.keepData }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
type: Opaque
stringData:
  {{- toYaml .secret | nindent 2 }}
{{- end -}}
