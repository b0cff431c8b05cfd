
   # a comment first, then a blank line

  from   busybox:1.36   As   Odd-Name.1
	RUN   echo   "a   b"   \  
  c
RUN echo \
\
  joined
EXPOSE 80/tcp 8000-8010/udp $EXTRA
LABEL "quoted key"="quoted value" plain=a\ b
ARG one two=2 three="3 3"
