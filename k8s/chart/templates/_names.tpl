{{/* Names and labels that everything here shares. */}}

{{- define "allotment.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "allotment.controlPlaneName" -}}{{ include "allotment.fullname" . }}-control-plane{{- end -}}
{{- define "allotment.agentName" -}}{{ include "allotment.fullname" . }}-agent{{- end -}}
{{- define "allotment.exampleName" -}}{{ include "allotment.fullname" . }}-example{{- end -}}

{{/* What never changes about a component, for selectors. Takes (list $ "component"). */}}
{{- define "allotment.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "allotment.labels" -}}
{{- $root := index . 0 -}}
{{ include "allotment.selector" . }}
app.kubernetes.io/part-of: allotment
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* Takes (list $ .Values.images.agent). */}}
{{- define "allotment.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) | quote }}
{{- end -}}
{{- end -}}

{{- define "allotment.controlPlaneUrl" -}}
{{ ternary "https" "http" .Values.tls.enabled }}://{{ include "allotment.controlPlaneName" . }}.{{ .Release.Namespace }}.svc:{{ .Values.controlPlane.service.port }}
{{- end -}}

{{- define "allotment.adminSecret" -}}
{{ default (printf "%s-admin-token" (include "allotment.fullname" .)) .Values.tokens.admin.existingSecret }}
{{- end -}}
{{- define "allotment.joinSecret" -}}
{{ default (printf "%s-join-token" (include "allotment.fullname" .)) .Values.tokens.join.existingSecret }}
{{- end -}}

{{- define "allotment.replicas" -}}
{{ default (ternary 2 1 (eq .Values.database.kind "postgresql")) .Values.controlPlane.replicas }}
{{- end -}}
