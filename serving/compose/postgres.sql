-- One database and one user for each of the two; both have the password of .env.
\getenv password POSTGRES_PASSWORD
CREATE USER mlflow PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE USER prefect PASSWORD :'password';
CREATE DATABASE prefect OWNER prefect;
