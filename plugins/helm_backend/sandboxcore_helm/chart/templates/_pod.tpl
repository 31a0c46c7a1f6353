{{- /* The parts of a service's pod. All take (dict "root" $ "facts" facts "service" values). */ -}}

{{- define "sandboxcore.podLabels" -}}
inspect/service: {{ .facts.label | quote }}
{{- if .facts.named }}
sandboxcore.dev/named: "true"
{{- end }}
{{- if .facts.isolated }}
sandboxcore.dev/isolated: "true"
{{- end }}
{{- if .service.ports }}
sandboxcore.dev/ports: "true"
{{- end }}
{{- range .facts.networks }}
sandboxcore.dev/network-{{ . }}: "true"
{{- end }}
{{- range include "sandboxcore.sharedVolumes" . | fromJsonArray }}
sandboxcore.dev/volume-{{ .name | trunc 50 | trimAll "-" }}: "true"
{{- end }}
{{- end -}}

{{- define "sandboxcore.podAnnotations" -}}
{{- $found := dict -}}
{{- range $key, $value := .service.annotations }}{{ $_ := set $found $key (include "sandboxcore.text" $value) }}{{ end -}}
{{- $_ := set $found "sandboxcore.dev/service" .facts.logical -}}
{{- with .service.dependsOn }}
{{- $needs := dict -}}
{{- range $key, $need := . -}}
{{- $fuller := ternary (dict "condition" $need) $need (kindIs "string" $need) -}}
{{- $other := (index $.all $key | default dict).logical | default $key -}}
{{- $_ := set $needs $other (dict "condition" ($fuller.condition | default "started") "required" (ne $fuller.required false)) -}}
{{- end -}}
{{- $_ := set $found "sandboxcore.dev/depends-on" (toJson $needs) -}}
{{- end -}}
{{- if eq (.root.Values.default | default "") .facts.key }}{{ $_ := set $found "sandboxcore.dev/default" "true" }}{{ end -}}
{{- if eq .service.execTarget false }}{{ $_ := set $found "sandboxcore.dev/exec-target" "false" }}{{ end -}}
{{- with .service.user }}{{ $_ := set $found "sandboxcore.dev/user" . }}{{ end -}}
{{- toYaml $found -}}
{{- end -}}

{{- /* The environment's volumes that a service mounts: a list of name, claim, mountPath, readOnly, subPath, own. */ -}}
{{- define "sandboxcore.sharedVolumes" -}}
{{- $found := list -}}
{{- range .service.volumes -}}
{{- $mount := dict -}}
{{- if kindIs "string" . -}}
{{- $parts := splitList ":" . -}}
{{- $mount = dict "volume" (first $parts) "mountPath" (index $parts 1) "readOnly" (and (gt (len $parts) 2) (has "ro" (splitList "," (index $parts 2)))) -}}
{{- else if .volume -}}
{{- $mount = . -}}
{{- end -}}
{{- if $mount -}}
{{- $volume := index $.root.Values.volumes $mount.volume | default dict -}}
{{- $name := include "sandboxcore.dnsLabel" $mount.volume -}}
{{- $claim := $volume.existingClaim | default (printf "%s-%s" (include "agentEnv.fullname" $.root) $name) -}}
{{- $together := not (or $volume.spec $volume.existingClaim) -}}
{{- $found = append $found (dict "name" $name "claim" $claim "mountPath" $mount.mountPath "readOnly" ($mount.readOnly | default false)
      "subPath" ($mount.subPath | default "") "together" $together) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "sandboxcore.volumeMounts" -}}
{{- $found := .service.volumeMounts | default list -}}
{{- range include "sandboxcore.sharedVolumes" . | fromJsonArray -}}
{{- $mount := dict "name" (printf "shared-%s" .name | trunc 63 | trimSuffix "-") "mountPath" .mountPath -}}
{{- if .readOnly }}{{ $_ := set $mount "readOnly" true }}{{ end -}}
{{- with .subPath }}{{ $_ := set $mount "subPath" . }}{{ end -}}
{{- $found = append $found $mount -}}
{{- end -}}
{{- range $index, $path := keys (.service.files | default dict) | sortAlpha -}}
{{- $found = append $found (dict "name" "sandboxcore-files" "mountPath" $path "subPath" (printf "f%d" $index) "readOnly" true) -}}
{{- end -}}
{{- if include "sandboxcore.guestConfigMap" .root -}}
{{- $found = append $found (dict "name" "sandboxcore-guest" "mountPath" .root.Values.guest.mountPath "readOnly" true) -}}
{{- end -}}
{{- if .mountsResolver -}}
{{- $found = append $found (dict "name" "sandboxcore-resolver" "mountPath" "/etc/resolv.conf" "subPath" "resolv.conf" "readOnly" true) -}}
{{- end -}}
{{- if $found }}{{ toYaml $found }}{{ end -}}
{{- end -}}

{{- define "sandboxcore.volumes" -}}
{{- $found := list -}}
{{- range .service.volumes -}}
{{- if and (kindIs "map" .) (not .volume) }}{{ $found = append $found . }}{{ end -}}
{{- end -}}
{{- $seen := list -}}
{{- range include "sandboxcore.sharedVolumes" . | fromJsonArray -}}
{{- if not (has .name $seen) -}}
{{- $seen = append $seen .name -}}
{{- $found = append $found (dict "name" (printf "shared-%s" .name | trunc 63 | trimSuffix "-") "persistentVolumeClaim" (dict "claimName" .claim)) -}}
{{- end -}}
{{- end -}}
{{- if .service.files -}}
{{- $items := list -}}
{{- range $index, $path := keys .service.files | sortAlpha -}}
{{- $file := index $.service.files $path -}}
{{- $items = append $items (dict "key" (printf "f%d" $index) "path" (printf "f%d" $index) "mode" ($file.mode | default 420 | int)) -}}
{{- end -}}
{{- $found = append $found (dict "name" "sandboxcore-files" "secret" (dict "secretName" (printf "%s-files" .facts.object) "items" $items)) -}}
{{- end -}}
{{- with include "sandboxcore.guestConfigMap" .root -}}
{{- $found = append $found (dict "name" "sandboxcore-guest" "configMap" (dict "name" . "defaultMode" 493)) -}}
{{- end -}}
{{- if .hasResolver -}}
{{- $found = append $found (dict "name" "sandboxcore-resolver" "configMap" (dict "name" (printf "%s-resolver" (include "agentEnv.fullname" .root)))) -}}
{{- end -}}
{{- if $found }}{{ toYaml $found }}{{ end -}}
{{- end -}}

{{- /* Pods that share a volume of one node have to be on one node. */ -}}
{{- define "sandboxcore.affinity" -}}
{{- $affinity := deepCopy (.service.affinity | default dict) -}}
{{- $terms := list -}}
{{- if not (has "ReadWriteMany" .root.Values.volumeDefaults.accessModes) -}}
{{- range include "sandboxcore.sharedVolumes" . | fromJsonArray -}}
{{- if .together -}}
{{- $labels := include "agentEnv.selectorLabels" $.root | fromYaml -}}
{{- $_ := set $labels (printf "sandboxcore.dev/volume-%s" (.name | trunc 50 | trimAll "-")) "true" -}}
{{- $terms = append $terms (dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $terms -}}
{{- $pods := $affinity.podAffinity | default dict -}}
{{- $required := concat ($pods.requiredDuringSchedulingIgnoredDuringExecution | default list) (uniq $terms) -}}
{{- $_ := set $pods "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "podAffinity" $pods -}}
{{- end -}}
{{- if $affinity }}{{ toYaml $affinity }}{{ end -}}
{{- end -}}

{{- define "sandboxcore.env" -}}
{{- $found := list -}}
{{- if .root.Values.agentEnv }}{{ $found = append $found (dict "name" "AGENT_ENV" "value" (include "agentEnv.fullname" .root)) }}{{ end -}}
{{- range .env -}}
{{- if .valueFrom -}}
{{- $found = append $found (dict "name" .name "valueFrom" .valueFrom) -}}
{{- else -}}
{{- $found = append $found (dict "name" .name "value" (include "sandboxcore.text" .value)) -}}
{{- end -}}
{{- end -}}
{{- if $found }}{{ toYaml $found }}{{ end -}}
{{- end -}}

{{- define "sandboxcore.resolverContainer" -}}
- name: coredns
  image: {{ .root.Values.corednsImage | quote }}
  {{- with .root.Values.corednsImagePullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  command: {{ toJson .root.Values.corednsCommand }}
  {{- if .native }}
  restartPolicy: Always
  {{- end }}
  ports:
    - {name: dns, containerPort: 53, protocol: UDP}
    - {name: dns-tcp, containerPort: 53, protocol: TCP}
    - {name: dns-ready, containerPort: {{ .root.Values.corednsReadyPort }}, protocol: TCP}
  startupProbe:
    httpGet: {path: /ready, port: dns-ready}
    periodSeconds: 1
    failureThreshold: 30
  {{- with .root.Values.corednsResources }}
  resources: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.corednsSecurityContext }}
  securityContext: {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: sandboxcore-resolver, mountPath: /etc/coredns, readOnly: true}
{{- end -}}

{{- /* How names are looked up in the pod. */ -}}
{{- define "sandboxcore.dns" -}}
{{- $fullname := include "agentEnv.fullname" .root -}}
{{- $own := printf "%s.%s.svc.%s" $fullname .root.Release.Namespace .root.Values.dns.clusterDomain -}}
{{- $space := printf "%s.svc.%s" .root.Release.Namespace .root.Values.dns.clusterDomain -}}
{{- $searches := ternary (list $own $space) (list $own) .root.Values.agentEnv -}}
{{- if and .hasResolver (not .mountsResolver) }}
dnsPolicy: None
dnsConfig: {nameservers: [127.0.0.1]}
{{- else if .hasResolver }}
{{- else if .root.Values.dns.nameservers }}
dnsPolicy: None
dnsConfig:
  nameservers: {{ toJson .root.Values.dns.nameservers }}
  {{- if .anyNamed }}
  searches: {{ toJson $searches }}
  {{- end }}
{{- else if .anyNamed }}
dnsConfig:
  searches: {{ toJson (list $own) }}
{{- end }}
{{- end -}}

{{- /* Those of the keys that have a value, as they are: (dict "from" values "keys" list). */ -}}
{{- define "sandboxcore.pick" -}}
{{- $found := dict -}}
{{- range .keys -}}
{{- $value := index $.from . -}}
{{- if $value }}{{ $_ := set $found . $value }}{{ end -}}
{{- end -}}
{{- if $found }}{{ toYaml $found }}{{ end -}}
{{- end -}}

{{- define "sandboxcore.serviceContainer" -}}
- name: {{ .facts.container | quote }}
  {{- $keys := list "image" "imagePullPolicy" "command" "args" "workingDir" "envFrom" "stdin" "tty" "resources" "securityContext" -}}
  {{- $keys = concat $keys (list "startupProbe" "readinessProbe" "livenessProbe" "lifecycle") }}
  {{- include "sandboxcore.pick" (dict "from" .service "keys" $keys) | nindent 2 }}
  {{- with include "sandboxcore.env" (dict "root" .root "env" .service.env) }}
  env: {{- . | nindent 4 }}
  {{- end }}
  {{- with include "sandboxcore.volumeMounts" . }}
  volumeMounts: {{- . | nindent 4 }}
  {{- end }}
  {{- with .service.declaredPorts }}
  ports: {{- toYaml (uniq .) | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "sandboxcore.initContainer" -}}
- name: {{ .container.name | quote }}
  {{- $keys := list "image" "imagePullPolicy" "command" "args" "workingDir" "resources" "securityContext" }}
  {{- include "sandboxcore.pick" (dict "from" .container "keys" $keys) | nindent 2 }}
  {{- with include "sandboxcore.env" (dict "root" .root "env" .container.env) }}
  env: {{- . | nindent 4 }}
  {{- end }}
  {{- $mounts := .container.volumeMounts | default list }}
  {{- if and .mountsResolver .native }}
  {{- $mounts = append $mounts (dict "name" "sandboxcore-resolver" "mountPath" "/etc/resolv.conf" "subPath" "resolv.conf" "readOnly" true) }}
  {{- end }}
  {{- with $mounts }}
  volumeMounts: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
