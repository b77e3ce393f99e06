{{/* The control plane's pod, the same in a StatefulSet on SQLite and in a Deployment on PostgreSQL. */}}

{{- define "allotment.controlPlanePod" -}}
{{- $scheme := ternary "HTTPS" "HTTP" .Values.tls.enabled -}}
metadata:
  labels:
    {{- include "allotment.labels" (list . "control-plane") | nindent 4 }}
spec:
  serviceAccountName: {{ include "allotment.controlPlaneName" . }}
  {{- include "allotment.podBasics" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ .Values.controlPlane.terminationGracePeriodSeconds }}
  {{- with .Values.controlPlane.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- include "allotment.podSecurity" . | nindent 4 }}
  {{- include "allotment.spread" (list . "control-plane") | nindent 2 }}
  {{- with .Values.controlPlane.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.controlPlane.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: control-plane
      image: {{ include "allotment.image" (list . .Values.images.controlPlane) }}
      imagePullPolicy: {{ .Values.images.controlPlane.pullPolicy }}
      # Brings the database to the newest schema first; replicas that start together wait for each other.
      args: ["serve"]
      env:
        {{- include "allotment.controlPlaneEnv" . | nindent 8 }}
      ports:
        - name: http
          containerPort: {{ .Values.controlPlane.port }}
          protocol: TCP
      startupProbe:
        httpGet: {path: /healthz, port: http, scheme: {{ $scheme }}}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 150
      livenessProbe:
        httpGet: {path: /healthz, port: http, scheme: {{ $scheme }}}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http, scheme: {{ $scheme }}}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      {{- if eq .Values.database.kind "postgresql" }}
      # Time for every node to learn that no new requests come here.
      lifecycle:
        preStop:
          sleep: {seconds: 5}
      {{- end }}
      resources:
        {{- toYaml .Values.controlPlane.resources | nindent 8 }}
      securityContext:
        {{- include "allotment.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- if eq .Values.database.kind "sqlite" }}
        - name: data
          mountPath: /var/lib/allotment
        {{- end }}
        - name: tokens
          mountPath: /etc/allotment/tokens
          readOnly: true
        {{- if .Values.tls.enabled }}
        - name: tls
          mountPath: /etc/allotment/tls
          readOnly: true
        {{- end }}
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: tokens
      projected:
        defaultMode: 0440
        sources:
          - secret:
              name: {{ include "allotment.adminSecret" . }}
              items:
                - key: {{ .Values.tokens.admin.key }}
                  path: admin
          - secret:
              name: {{ include "allotment.joinSecret" . }}
              items:
                - key: {{ .Values.tokens.join.key }}
                  path: join
          {{- if .Values.controlPlane.sealKey.existingSecret }}
          - secret:
              name: {{ .Values.controlPlane.sealKey.existingSecret }}
              items:
                - key: {{ .Values.controlPlane.sealKey.key }}
                  path: seal-key
          {{- end }}
    {{- if .Values.tls.enabled }}
    - name: tls
      secret:
        secretName: {{ .Values.tls.secretName }}
        defaultMode: 0440
        items:
          - key: tls.crt
            path: tls.crt
          - key: tls.key
            path: tls.key
    {{- end }}
    - name: tmp
      emptyDir:
        sizeLimit: 256Mi
{{- end -}}

{{- define "allotment.controlPlaneEnv" -}}
- name: ALLOTMENT_DATABASE_URL
  {{- if eq .Values.database.kind "postgresql" }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.key }}
  {{- else }}
  value: sqlite:////var/lib/allotment/control-plane.db
  {{- end }}
- name: ALLOTMENT_HOST
  value: {{ .Values.controlPlane.host | quote }}
- name: ALLOTMENT_PORT
  value: {{ .Values.controlPlane.port | quote }}
- name: ALLOTMENT_ADMIN_TOKEN_FILE
  value: /etc/allotment/tokens/admin
- name: ALLOTMENT_JOIN_TOKEN_FILE
  value: /etc/allotment/tokens/join
- name: ALLOTMENT_LEARNING_MINUTES
  value: {{ .Values.controlPlane.learningMinutes | quote }}
- name: ALLOTMENT_RETENTION_DAYS
  value: {{ .Values.controlPlane.retentionDays | quote }}
- name: ALLOTMENT_GRACE_DAYS
  value: {{ .Values.controlPlane.graceDays | quote }}
{{- if .Values.controlPlane.sealKey.existingSecret }}
- name: ALLOTMENT_SEAL_KEY_FILE
  value: /etc/allotment/tokens/seal-key
{{- end }}
{{- if .Values.tls.enabled }}
- name: ALLOTMENT_TLS_CERT_FILE
  value: /etc/allotment/tls/tls.crt
- name: ALLOTMENT_TLS_KEY_FILE
  value: /etc/allotment/tls/tls.key
{{- end }}
{{- end -}}
