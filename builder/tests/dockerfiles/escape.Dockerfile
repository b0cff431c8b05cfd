# escape=`
FROM mcr.example.org/windows:ltsc
WORKDIR C:\app
RUN dir c:\ `
    && echo done
COPY app.exe C:\app\
ENV TOOL="C:\tool" OTHER=a` b
CMD ["app.exe"]
