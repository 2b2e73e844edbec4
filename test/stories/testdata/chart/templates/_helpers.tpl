{{- /* A hook: a Job that runs the image's program with the given arguments. */ -}}
{{- define "shop.hook" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .root.Release.Name }}-{{ .when }}
  annotations: {helm.sh/hook: {{ .when }}, helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {hook: {{ .when }}}}
    spec:
      restartPolicy: Never
      containers: [{name: hook, image: {{ .root.Values.image }}, args: {{ toJson .args }}}]
{{- end -}}
