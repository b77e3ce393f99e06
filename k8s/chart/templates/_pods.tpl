{{/* What every pod and container here has in common: the restricted Pod Security Standard, and the agent itself. */}}

{{- define "allotment.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
# Secrets and empty volumes belong to this group, and so do the agent's sockets.
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "allotment.containerSecurity" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Service links would put ALLOTMENT_..._PORT variables beside our own settings. */}}
{{- define "allotment.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Over zones and nodes as far as there are any. Takes (list $ "component"). */}}
{{- define "allotment.spread" -}}
{{- $selector := include "allotment.selector" . -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* Environment of an agent, under whatever name it is to have. Takes (list $ "metadata.name"). */}}
{{- define "allotment.agentEnv" -}}
{{- $root := index . 0 -}}
- name: ALLOTMENT_CONTROL_PLANE_URL
  value: {{ include "allotment.controlPlaneUrl" $root | quote }}
- name: ALLOTMENT_AGENT_NAME
  valueFrom:
    fieldRef:
      fieldPath: {{ index . 1 }}
- name: ALLOTMENT_JOIN_TOKEN_FILE
  value: /etc/allotment/join/token
{{- if $root.Values.tls.enabled }}
- name: ALLOTMENT_CA_FILE
  value: /etc/allotment/ca/ca.crt
{{- end }}
- name: ALLOTMENT_DATA_DIR
  value: /var/lib/allotment
- name: ALLOTMENT_SOCKET_DIR
  value: /run/allotment
- name: ALLOTMENT_SOCKET_MODE
  value: {{ $root.Values.agent.socketMode | quote }}
- name: ALLOTMENT_CONNECTIONS_MAX
  value: {{ $root.Values.agent.connectionsMax | int | quote }}
{{- end -}}

{{/* The directory of the sockets is mounted, never a socket: a mounted file stays behind when the agent starts anew. */}}
{{- define "allotment.agentMounts" -}}
- name: data
  mountPath: /var/lib/allotment
- name: sockets
  mountPath: /run/allotment
- name: join-token
  mountPath: /etc/allotment/join
  readOnly: true
{{- if .Values.tls.enabled }}
- name: ca
  mountPath: /etc/allotment/ca
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "allotment.agentVolumes" -}}
- name: join-token
  secret:
    secretName: {{ include "allotment.joinSecret" . }}
    defaultMode: 0440
    items:
      - key: {{ .Values.tokens.join.key }}
        path: token
{{- if .Values.tls.enabled }}
- name: ca
  secret:
    secretName: {{ default .Values.tls.secretName .Values.tls.caSecretName }}
    defaultMode: 0440
    # The control plane's private key may lie in the same Secret; an agent never sees it.
    items:
      - key: {{ .Values.tls.caKey }}
        path: ca.crt
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end -}}

{{/* The probe starts a process each time, so it comes seldom once the agent is up. There is no liveness probe: to restart an
     agent helps neither against a full disk nor against a lost control plane, and takes from applications what it still can do.
     The start only waits for the agent to answer: with the control plane away an application beside it starts all the same,
     and is told what the agent cannot decide. */}}
{{- define "allotment.agentProbes" -}}
startupProbe:
  exec:
    command: ["allotment-agent", "health", "--alive"]
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
{{- end -}}

{{/* Only of an agent that is its own pod: beside an application it would take the whole pod out of its Services. */}}
{{- define "allotment.agentReadiness" -}}
readinessProbe:
  exec:
    command: ["allotment-agent", "health"]
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* The agent as a native sidecar: first of the pod's initContainers, up before the application and stopped after it. */}}
{{- define "allotment.sidecar" -}}
- name: allotment-agent
  image: {{ include "allotment.image" (list . .Values.images.agent) }}
  imagePullPolicy: {{ .Values.images.agent.pullPolicy }}
  restartPolicy: Always
  env:
    {{- include "allotment.agentEnv" (list . "metadata.name") | nindent 4 }}
  {{- include "allotment.agentProbes" . | nindent 2 }}
  resources:
    {{- toYaml .Values.agent.sidecar.resources | nindent 4 }}
  securityContext:
    {{- include "allotment.containerSecurity" . | nindent 4 }}
  volumeMounts:
    {{- include "allotment.agentMounts" . | nindent 4 }}
{{- end -}}
