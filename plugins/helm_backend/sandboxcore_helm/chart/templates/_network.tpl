{{- /* Rules of policies. */ -}}

{{- define "sandboxcore.anyIsolated" -}}
{{- range .Values.services }}{{ if .networkIsolated }}true{{ end }}{{ end -}}
{{- end -}}

{{- /* Selects the pods of the environment that are not isolated. */ -}}
{{- define "sandboxcore.connected" -}}
matchLabels:
  {{- include "agentEnv.selectorLabels" . | nindent 2 }}
{{- if include "sandboxcore.anyIsolated" . }}
matchExpressions:
  - {key: sandboxcore.dev/isolated, operator: DoesNotExist}
{{- end }}
{{- end -}}

{{- define "sandboxcore.serviceSelector" -}}
matchLabels:
  {{- include "agentEnv.selectorLabels" .root | nindent 2 }}
  inspect/service: {{ .facts.label | quote }}
{{- end -}}

{{- /* The head of a NetworkPolicy: (dict "root" $ "name" suffix). */ -}}
{{- define "sandboxcore.policyHead" -}}
metadata:
  name: {{ printf "%s%s" (include "agentEnv.fullname" .root) .name | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  {{- include "sandboxcore.metadata" (dict "root" .root) | nindent 2 }}
{{- end -}}

{{- /* Where plain policies let connections out to: (dict "root" $ "rules" allow*). Empty where nothing is let out. */ -}}
{{- define "sandboxcore.plainOutside" -}}
{{- $entities := .rules.allowEntities | default list -}}
{{- $settings := .root.Values.networkPolicy -}}
{{- $cilium := include "sandboxcore.hasCilium" .root -}}
{{- $peers := list -}}
{{- range .rules.allowCIDR -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" (ternary . (printf "%s/%s" . (ternary "128" "32" (contains ":" .))) (contains "/" .)))) -}}
{{- end -}}
{{- $world := and (not $cilium) (or (has "world" $entities) (has "all" $entities)) -}}
{{- if or .rules.internet $world (and (not $cilium) (has "world-ipv4" $entities)) -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" "0.0.0.0/0" "except" $settings.notInternet)) -}}
{{- end -}}
{{- if or .rules.internet $world (and (not $cilium) (has "world-ipv6" $entities)) -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" "::/0" "except" $settings.notInternetIPv6)) -}}
{{- end -}}
{{- if and (not $cilium) (or (has "cluster" $entities) (has "all" $entities)) -}}
{{- $peers = append $peers (dict "namespaceSelector" (dict)) -}}
{{- end -}}
{{- if $peers }}{{ toYaml (list (dict "to" $peers)) }}{{ end -}}
{{- end -}}

{{- /* Egress to the cluster's resolver and nowhere else. */ -}}
{{- define "sandboxcore.plainDns" -}}
- to:
  {{- range .Values.dns.podLabels }}
  - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $.Values.dns.namespace | quote }}}}
    podSelector: {matchLabels: {{ toJson . }}}
  {{- end }}
  {{- range uniq (concat (list .Values.dns.nodeCache) .Values.dns.nameservers .Values.corednsUpstream) }}
  - ipBlock: {cidr: {{ printf "%s/%s" . (ternary "128" "32" (contains ":" .)) | quote }}}
  {{- end }}
  ports:
  - {port: {{ .Values.dns.port }}, protocol: UDP}
  - {port: {{ .Values.dns.port }}, protocol: TCP}
{{- end -}}

{{- define "sandboxcore.ports" -}}
{{- $found := list -}}
{{- range .ports -}}
{{- $port := .port | int -}}
{{- $protocol := upper (.protocol | default "TCP") -}}
{{- range (ternary (list "TCP" "UDP") (list $protocol) (eq $protocol "ANY")) -}}
{{- $found = append $found (dict "port" $port "protocol" .) -}}
{{- end -}}
{{- end -}}
{{- toYaml (uniq $found) -}}
{{- end -}}

{{- /* What Cilium's rules add: (dict "root" $ "rules" allow* "names" whether the environment's own names are looked up here). */ -}}
{{- define "sandboxcore.ciliumOutside" -}}
{{- $values := .root.Values -}}
{{- $domains := .rules.allowDomains | default list -}}
{{- $entities := .rules.allowEntities | default list -}}
{{- $rules := list -}}
{{- $patterns := list -}}
{{- $space := printf "%s.svc.%s" .root.Release.Namespace $values.dns.clusterDomain -}}
{{- $searches := list (printf "%s.%s" (include "agentEnv.fullname" .root) $space) $space -}}
{{- if not (concat $values.dns.nameservers $values.corednsUpstream) -}}
{{- /* The search domains that the kubelet adds: a refusal there would end a search before the environment's own. */ -}}
{{- $searches = concat $searches (list (printf "svc.%s" $values.dns.clusterDomain) $values.dns.clusterDomain) -}}
{{- end -}}
{{- if .names -}}
{{- range $searches }}{{ $patterns = append $patterns (dict "matchPattern" (printf "*.%s" .)) }}{{ end -}}
{{- end -}}
{{- range $domain := $domains -}}
{{- $patterns = append $patterns (dict "matchPattern" $domain) -}}
{{- /* A refusal would end the search before the domain itself in some resolvers (musl's). */ -}}
{{- range $searches }}{{ $patterns = append $patterns (dict "matchPattern" (printf "%s.%s" $domain .)) }}{{ end -}}
{{- end -}}
{{- if or .rules.internet (has "world" $entities) (has "all" $entities) }}{{ $patterns = list (dict "matchPattern" "*") }}{{ end -}}
{{- if $patterns -}}
{{- $peers := list -}}
{{- range $values.dns.podLabels -}}
{{- $peers = append $peers (dict "matchLabels" (merge (dict "k8s:io.kubernetes.pod.namespace" $values.dns.namespace) .)) -}}
{{- end -}}
{{- $ports := list (dict "port" (toString $values.dns.port) "protocol" "ANY") -}}
{{- $rules = append $rules (dict "toEndpoints" $peers "toPorts" (list (dict "ports" $ports "rules" (dict "dns" $patterns)))) -}}
{{- end -}}
{{- if $domains -}}
{{- $names := list -}}
{{- range $domains }}{{ $names = append $names (dict "matchPattern" .) }}{{ end -}}
{{- $to := dict "toFQDNs" $names -}}
{{- $open := list -}}
{{- range .rules.allowDomainsPorts -}}
{{- $port := dict "port" (toString .port) "protocol" (upper (.protocol | default "ANY")) -}}
{{- if .domain -}}
{{- $one := list (dict "ports" (list $port)) -}}
{{- $rules = append $rules (dict "toFQDNs" (list (dict "matchPattern" .domain)) "toPorts" $one) -}}
{{- else -}}
{{- $open = append $open $port -}}
{{- end -}}
{{- end -}}
{{- if not (has "*" $domains) -}}
{{- $https := dict "ports" (list (dict "port" "443" "protocol" "TCP")) -}}
{{- $http := dict "ports" (list (dict "port" "80" "protocol" "TCP")) -}}
{{- if $values.networkPolicy.checkIdentity -}}
{{- $hosts := list -}}
{{- range $domains -}}
{{- $pattern := . | replace "." "[.]" | replace "*" "[^.]+" -}}
{{- $hosts = append $hosts (dict "host" (printf "(?i)^%s(:[0-9]+)?$" $pattern)) -}}
{{- end -}}
{{- $_ := set $https "serverNames" $domains -}}
{{- $_ := set $http "rules" (dict "http" $hosts) -}}
{{- end -}}
{{- $all := list $https $http -}}
{{- if $open }}{{ $all = append $all (dict "ports" $open) }}{{ end -}}
{{- $_ := set $to "toPorts" $all -}}
{{- end -}}
{{- $rules = append $rules $to -}}
{{- end -}}
{{- if $entities }}{{ $rules = append $rules (dict "toEntities" $entities) }}{{ end -}}
{{- if $rules }}{{ toYaml $rules }}{{ end -}}
{{- end -}}
