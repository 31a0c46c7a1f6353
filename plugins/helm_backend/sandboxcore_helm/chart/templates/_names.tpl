{{- /* Names and labels. Those that begin with agentEnv are what the values of inspect_k8s_sandbox may refer to in additionalResources. */ -}}

{{- define "agentEnv.name" -}}
{{- .Values.global.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "agentEnv.fullname" -}}
{{- $plain := printf "%s-%s" (include "agentEnv.name" .) .Release.Name -}}
{{- .Values.global.fullnameOverride | default $plain | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "agentEnv.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "agentEnv.selectorLabels" -}}
app.kubernetes.io/name: {{ include "agentEnv.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "agentEnv.labelsFromValues" -}}
{{- range $key, $value := .Values.labels }}
{{ $key | quote }}: {{ include "sandboxcore.text" $value | quote }}
{{- end }}
{{- range $key, $value := .Values.sandboxcore.labels }}
{{ $key | quote }}: {{ include "sandboxcore.text" $value | quote }}
{{- end }}
{{- end -}}

{{- define "agentEnv.labels" -}}
{{- include "agentEnv.labelsFromValues" . }}
helm.sh/chart: {{ include "agentEnv.chart" . | quote }}
{{ include "agentEnv.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{- define "sandboxcore.annotations" -}}
{{- range $key, $value := .Values.annotations }}
{{ $key | quote }}: {{ include "sandboxcore.text" $value | quote }}
{{- end }}
{{- range $key, $value := .Values.sandboxcore.annotations }}
{{ $key | quote }}: {{ include "sandboxcore.text" $value | quote }}
{{- end }}
{{- end -}}

{{- /* A scalar as the text that it was written with: 1000000 and not 1e+06. */ -}}
{{- define "sandboxcore.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else if not (kindIs "invalid" .) }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- /* Labels and annotations of an object: (dict "root" $ "labels" dict "annotations" dict), both of them optional. */ -}}
{{- define "sandboxcore.metadata" -}}
{{- $labels := merge (dict) (.labels | default dict) (include "agentEnv.labels" .root | fromYaml) -}}
{{- $annotations := merge (dict) (.annotations | default dict) (include "sandboxcore.annotations" .root | fromYaml) -}}
{{- toYaml (dict "labels" $labels) }}
{{- if $annotations }}
{{ toYaml (dict "annotations" $annotations) }}
{{- end }}
{{- end -}}

{{- define "sandboxcore.digest" -}}
{{- sha256sum . | trunc 6 -}}
{{- end -}}

{{- /* A DNS label of any text: one that is a label stays, all else gets a digest so that two never meet. */ -}}
{{- define "sandboxcore.dnsLabel" -}}
{{- if and (le (len .) 63) (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" .) -}}
{{- . -}}
{{- else -}}
{{- $stem := regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" | trunc 56 | trimSuffix "-" | default "x" -}}
{{- printf "%s-%s" $stem (include "sandboxcore.digest" .) -}}
{{- end -}}
{{- end -}}

{{- define "sandboxcore.labelValue" -}}
{{- if regexMatch "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$" . -}}
{{- . -}}
{{- else -}}
{{- $stem := regexReplaceAll "[^-A-Za-z0-9_.]+" . "-" | trimAll "-_." | trunc 56 | trimAll "-_." | default "x" -}}
{{- printf "%s-%s" $stem (include "sandboxcore.digest" .) -}}
{{- end -}}
{{- end -}}

{{- /* What follows from a service's values: (dict "root" $ "key" name "service" values), as JSON. */ -}}
{{- define "sandboxcore.facts" -}}
{{- $key := .key -}}
{{- $service := .service -}}
{{- $logical := $service.logicalName | default $key -}}
{{- $legal := include "sandboxcore.dnsLabel" $key -}}
{{- $hostname := $service.hostname | default $legal -}}
{{- $isolated := $service.networkIsolated | default false -}}
{{- $asked := or $service.dnsRecord $service.additionalDnsRecords $service.ports -}}
{{- $named := false -}}
{{- if and $asked (not $isolated) }}{{ $named = true }}{{ end -}}
{{- $records := list -}}
{{- if $named -}}
{{- range concat (list $key) ($service.additionalDnsRecords | default list) -}}
{{- if ne (lower .) $hostname }}{{ $records = append $records (lower .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $object := printf "%s-%s" (include "agentEnv.fullname" .root) $legal -}}
{{- dict "key" $key "logical" $logical "label" (include "sandboxcore.labelValue" $logical) "object" $object "container" $legal
      "hostname" $hostname "isolated" $isolated "named" $named "records" (uniq $records)
      "networks" ($service.networks | default list) | toJson -}}
{{- end -}}

{{- /* The facts of all services, by key, as JSON. */ -}}
{{- define "sandboxcore.services" -}}
{{- $root := . -}}
{{- $found := dict -}}
{{- range $key, $service := .Values.services -}}
{{- $_ := set $found $key (include "sandboxcore.facts" (dict "root" $root "key" $key "service" $service) | fromJson) -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- /* "true" where a service has a name that is no pod's host name: only then is there a resolver in the pods. */ -}}
{{- define "sandboxcore.needsResolver" -}}
{{- $needed := "" -}}
{{- range $key, $facts := include "sandboxcore.services" . | fromJson -}}
{{- if $facts.records }}{{ $needed = "true" }}{{ end -}}
{{- end -}}
{{- $needed -}}
{{- end -}}

{{- define "sandboxcore.hasCilium" -}}
{{- if kindIs "bool" .Values.networkPolicy.cilium -}}
{{- ternary "true" "" .Values.networkPolicy.cilium -}}
{{- else if .Capabilities.APIVersions.Has "cilium.io/v2/CiliumNetworkPolicy" -}}
true
{{- end -}}
{{- end -}}

{{- /* The name of the ConfigMap with the guest program; empty where it is not mounted. */ -}}
{{- define "sandboxcore.guestConfigMap" -}}
{{- if .Values.guest.binaryData -}}
{{- printf "%s-guest" (include "agentEnv.fullname" .) -}}
{{- else -}}
{{- .Values.guest.configMap | default "" -}}
{{- end -}}
{{- end -}}
